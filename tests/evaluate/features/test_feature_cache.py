from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pathclip.errors import ConfigError
from pathclip.evaluate.features.feature_cache import MANY, FeatureCache
from pathclip.evaluate.features.feature_pack import SUFFIX

KEY = {"what": "numbers", "model": "a"}
WIDTH = 4


def digest(number):
    return hashlib.sha256(f"picture {number}".encode()).hexdigest()


def row(number):
    return np.arange(WIDTH, dtype="<f4") + number


def fill(shelf, numbers):
    shelf.add([digest(n) for n in numbers], np.stack([row(n) for n in numbers]))


def packs(folder):
    return sorted(folder.glob(f"*/*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)


def shelf_of(folder, key=KEY, **more):
    return FeatureCache(folder, **more).shelf(key, WIDTH)


def script(body, *arguments, **more):
    """A process of its own that knows the helpers above."""
    code = f"import sys\nfrom tests.evaluate.features.test_feature_cache import *\n{body}"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **more)


def test_what_was_kept_is_found_by_another_cache_on_the_folder(tmp_path):
    fill(shelf_of(tmp_path), [5, 1, 9])
    found, rows = shelf_of(tmp_path).get([digest(n) for n in (1, 2, 9, 5)])
    assert found.tolist() == [True, False, True, True]
    assert np.array_equal(rows, [row(1), np.zeros(WIDTH), row(9), row(5)])


def test_nothing_asked_for_is_nothing_found(tmp_path):
    found, rows = shelf_of(tmp_path).get([])
    assert found.shape == (0,) and rows.shape == (0, WIDTH)


@pytest.mark.parametrize("change", [{"model": "b"}, {"precision": "int8"}, {"seed": 1}])
def test_another_key_never_hits(tmp_path, change):
    fill(shelf_of(tmp_path), [1])
    assert not shelf_of(tmp_path, {**KEY, **change}).get([digest(1)])[0].any()


def test_a_pack_moved_to_the_shelf_of_another_key_is_not_believed(tmp_path, capsys):
    fill(shelf_of(tmp_path), [1])
    fill(shelf_of(tmp_path, {"model": "b"}), [2])
    one, other = packs(tmp_path)
    one.rename(other.parent / one.name)
    assert not shelf_of(tmp_path, {"model": "b"}).get([digest(1)])[0].any()
    assert "belongs to another key" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "longer", "one byte of a row", "one byte of the header", "empty"])
def test_a_damaged_pack_is_passed_over_with_a_warning(tmp_path, capsys, damage):
    fill(shelf_of(tmp_path), [1, 2])
    fill(shelf_of(tmp_path), [3])
    path = packs(tmp_path)[0]
    content = bytearray(path.read_bytes())
    if damage.startswith("one byte"):
        content[-3 if damage.endswith("row") else 70] ^= 1
    path.write_bytes({"cut": content[:-5], "longer": content + b"0", "empty": b""}.get(damage, content))
    found, rows = shelf_of(tmp_path).get([digest(n) for n in (1, 2, 3)])
    assert found.tolist() == [False, False, True]
    assert not rows[:2].any()
    assert f"warning: {path}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("change", [-8, 8])
def test_a_pack_whose_length_changes_after_it_was_opened_is_not_believed(tmp_path, change):
    shelf = shelf_of(tmp_path)
    fill(shelf, [1, 2])
    path = packs(tmp_path)[0]
    path.write_bytes(bytes(path.stat().st_size + change))
    assert not shelf.get([digest(1), digest(2)])[0].any()


def test_what_is_there_already_is_not_written_again(tmp_path):
    fill(shelf_of(tmp_path), [1, 2])
    fill(shelf_of(tmp_path), [1, 2])
    assert len(packs(tmp_path)) == 1


def test_many_small_packs_become_one_with_each_row_once(tmp_path):
    shelves = [shelf_of(tmp_path) for _ in range(MANY + 1)]
    for number, shelf in enumerate(shelves):
        fill(shelf, [number, 1000])  # each writes 1000, not knowing of the others
    shelf = shelf_of(tmp_path)
    assert len(packs(tmp_path)) == 1
    assert packs(tmp_path)[0].stat().st_size < (MANY + 4) * (32 + 4 * WIDTH) + 400
    found, rows = shelf.get([digest(n) for n in (*range(MANY + 1), 1000)])
    assert found.all()
    assert np.array_equal(rows, [row(n) for n in (*range(MANY + 1), 1000)])


def test_a_shelf_follows_packs_that_another_process_merges(tmp_path):
    shelves = [shelf_of(tmp_path) for _ in range(MANY + 1)]
    for number, shelf in enumerate(shelves):
        fill(shelf, [number])
    early = FeatureCache(tmp_path)
    early.writes = False  # or it would merge them itself
    early = early.shelf(KEY, WIDTH)
    shelf_of(tmp_path)
    assert len(packs(tmp_path)) == 1
    assert early.get([digest(n) for n in range(MANY + 1)])[0].all()


WRITER = """
folder, first, last, step = Path(sys.argv[1]), *map(int, sys.argv[2:])
for start in range(first, last, step):
    fill(shelf_of(folder), range(start, start + step))  # opens anew, and so merges, each time
"""


def test_two_processes_that_write_and_merge_at_once_lose_nothing(tmp_path, capsys):
    body = f"from pathlib import Path\n{WRITER}"
    writers = [script(body, tmp_path, first, first + 300, 5) for first in (0, 150)]
    seen = np.zeros(450, bool)
    while any(writer.poll() is None for writer in writers):
        found, rows = shelf_of(tmp_path).get([digest(n) for n in range(450)])
        assert np.array_equal(rows[found], [row(n) for n in np.flatnonzero(found)] or rows[found])
        assert (seen <= found).all()
        seen = found
    assert [writer.returncode for writer in writers] == [0, 0]
    found, rows = shelf_of(tmp_path).get([digest(n) for n in range(450)])
    assert found.all()
    assert np.array_equal(rows, [row(n) for n in range(450)])
    assert len(packs(tmp_path)) <= 2 * MANY  # they did merge
    assert capsys.readouterr().err == ""


def test_a_kill_in_the_middle_of_writing_leaves_whole_packs_only(tmp_path, capsys):
    body = """
shelf = FeatureCache(sys.argv[1]).shelf(KEY, 4096)
for number in range(10_000):
    shelf.add([digest(n) for n in range(number * 64, number * 64 + 64)], np.full((64, 4096), number, "<f4"))
    print(number, flush=True)
"""
    for delay in (0.001, 0.004, 0.007):
        with script(body, tmp_path / str(delay), stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(3):
                last = int(writer.stdout.readline())
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            last = max([last, *map(int, writer.stdout.read().split())])
        found, rows = (
            FeatureCache(tmp_path / str(delay)).shelf(KEY, 4096).get([digest(n) for n in range(6400)])
        )
        assert found[: 64 * (last + 1)].all()
        assert (rows[found] == (np.flatnonzero(found) // 64)[:, None]).all()
    assert capsys.readouterr().err == ""


def test_the_oldest_packs_go_when_the_folder_is_over_its_limit(tmp_path):
    for number in range(5):
        fill(shelf_of(tmp_path), range(number * 1000, number * 1000 + 1000))
    size = packs(tmp_path)[0].stat().st_size
    shelf = shelf_of(tmp_path, limit=3.5 * size / (1 << 30))
    fill(shelf, range(9000, 10_000))
    assert sum(path.stat().st_size for path in packs(tmp_path)) <= 3.5 * size
    found, _ = shelf_of(tmp_path).get([digest(n) for n in (0, 1000, 2000, 3000, 4000, 9000)])
    assert found.tolist() == [False, False, False, True, True, True]


def test_a_limit_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cache_limit: 0 GiB holds nothing"):
        FeatureCache(tmp_path, 0)


def test_a_folder_that_cannot_be_made_turns_the_cache_off_with_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file" / "cache")
    for key in (KEY, {"model": "b"}):
        fill(cache.shelf(key, WIDTH), [1])
        assert not cache.shelf(key, WIDTH).get([digest(1)])[0].any()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_still_read(tmp_path, capsys):
    fill(shelf_of(tmp_path), [1])
    for path in (packs(tmp_path)[0].parent, tmp_path):
        path.chmod(0o555)
    shelf = shelf_of(tmp_path)
    fill(shelf, [2])
    assert shelf.get([digest(1), digest(2)])[0].tolist() == [True, False]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_turns_writing_off_with_one_line_and_leaves_no_half_file(tmp_path):
    body = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the system refuses to write more
shelf = shelf_of(sys.argv[1])
fill(shelf, range(100))
fill(shelf, range(100, 1000))
fill(shelf, range(1000, 1010))
print(int(shelf.get([digest(n) for n in range(1010)])[0].sum()))
"""
    with script(body, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate()
    assert out.strip() == "100"
    assert err.count("\n") == 1 and "keeps no features" in err
    assert len([*tmp_path.glob("*/*"), *tmp_path.glob("*/.*")]) == 1


def test_the_half_written_file_of_a_killed_process_is_swept_up_after_a_day(tmp_path):
    fill(shelf_of(tmp_path), [1])
    for age, name in ((0, ".new.tmp"), (2, ".old.tmp")):
        path = packs(tmp_path)[0].parent / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age * 86_400,) * 2)
    FeatureCache(tmp_path)
    assert [path.name for path in tmp_path.glob("*/.*")] == [".new.tmp"]


def test_what_is_not_a_number_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="not a number"):
        shelf_of(tmp_path).add([digest(1)], np.full((1, WIDTH), np.nan, "<f4"))


def test_a_header_that_lies_about_its_length_is_not_believed(tmp_path, capsys):
    fill(shelf_of(tmp_path), [1])
    path = packs(tmp_path)[0]
    content = path.read_bytes()
    start = 20 + 32
    length = int.from_bytes(content[start : start + 4], "little")
    header = json.loads(content[start + 4 : start + 4 + length]) | {"rows": 2**31}
    text = json.dumps(header).encode()
    rest = len(text).to_bytes(4, "little") + text + content[start + 4 + length :]
    path.write_bytes(content[:20] + hashlib.sha256(rest).digest() + rest)
    assert not shelf_of(tmp_path).get([digest(1)])[0].any()
    assert "has not the length that it states" in capsys.readouterr().err
