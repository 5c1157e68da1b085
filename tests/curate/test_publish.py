import json
import shutil
from pathlib import Path

import pytest

from pathclip.curate.ledger import Ledger
from pathclip.curate.publish import REPORTS, Changed, forget, publish
from pathclip.errors import DataError
from pathclip.shards.reader import read_manifest, read_samples
from pathclip.shards.writer import shard_name, write_shard
from tests import tiny_shards

from .feed import contents
from .kills import FILE_CHANGES, killed_at

NEW = {"train": 6, "val": 0, "test": 2}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """What a run left before, here fewer and there more shards than there will be; and a file of others."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    for split, n in {"train": 5, "val": 4, "test": 4}.items():
        tiny_shards.write(out / split, n=n, per_shard=3)
    (out / "train" / "notes.txt").write_text("mine")
    for name in REPORTS:
        (out / name).write_text("old")
    return out


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    """A ledger with new shards and reports beside it."""
    folder = tmp_path_factory.mktemp("staged") / ".unfinished"
    samples = tiny_shards.samples(20)[::-1]
    with Ledger(folder, "test") as ledger:
        for split, n in NEW.items():
            for number, start in enumerate(range(0, n, 2)):
                name = shard_name(number)
                digest = write_shard(folder / split / name, samples[start : start + 2])
                ledger.write("insert into shard values (?, ?, ?, ?)", [(split, name, 2, digest)])
    for name in REPORTS:
        (folder / name).write_text("new")
    return folder


def laid_out(folder: Path, earlier: Path, staged: Path) -> Path:
    out = folder / "out"
    shutil.copytree(earlier, out)
    shutil.copytree(staged, out / ".unfinished")
    return out


def published(out: Path) -> dict[str, int]:
    with Ledger(out / ".unfinished", "test") as ledger:
        return publish(ledger, out, "hash")


def kept(folder: Path) -> list[str] | None:
    """The samples that a reader gets of a folder; None where it refuses."""
    try:
        read_manifest(folder)
        return [sample.key for sample in read_samples(folder)]
    except DataError:
        return None


def test_shards_and_reports_take_the_place_of_earlier_ones_and_other_files_stay(tmp_path, earlier, staged):
    out = laid_out(tmp_path, earlier, staged)
    assert published(out) == NEW
    forget(out / ".unfinished")
    assert sorted(contents(out)) == sorted(
        [
            *REPORTS,
            *(f"{split}/{name}" for split in NEW for name in ("manifest.json", "sizes.json")),
            *("train/000000.tar", "train/000001.tar", "train/000002.tar", "train/notes.txt"),
            "test/000000.tar",
        ]
    )
    assert list(read_samples(out / "train")) == tiny_shards.samples(20)[::-1][:6]
    assert read_manifest(out / "train").config_hash == "hash"
    assert (out / "funnel.json").read_text() == "new"


def test_a_kill_at_any_step_leaves_no_mixture_and_the_next_call_finishes(tmp_path, earlier, staged):
    whole = laid_out(tmp_path / "whole", earlier, staged)
    published(whole)
    expected = contents(whole)
    old, new = ({split: kept(out / split) for split in NEW} for out in (earlier, whole))
    step, calls = 0, ["killed"]
    while calls[-1] == "killed":
        step += 1
        out = laid_out(tmp_path / str(step), earlier, staged)
        with killed_at(step, FILE_CHANGES) as calls:
            published(out)
        found = {split: kept(out / split) for split in NEW}
        assert all(found[split] in (None, old[split], new[split]) for split in NEW), step
        is_new = {split for split in NEW if found[split] == new[split]}
        is_old = {split for split in NEW if found[split] == old[split]}
        assert not (is_new and is_old), step
        told = {(out / name).read_text() for name in REPORTS if (out / name).exists()}
        assert told != {"old", "new"}, step
        # A report of other shards would be believed; without one, nobody takes the folder for whole.
        assert "old" not in told or is_old == set(NEW), step
        assert "new" not in told or is_new == set(NEW), step
        published(out)
        assert contents(out) == expected, step
    assert step > 20


@pytest.mark.parametrize("spoil", [Path.unlink, lambda shard: shard.write_bytes(b"of another run")])
def test_a_shard_that_was_moved_before_a_kill_and_is_another_since_is_told(tmp_path, earlier, staged, spoil):
    out = laid_out(tmp_path, earlier, staged)
    with killed_at(18, FILE_CHANGES):
        published(out)
    assert not (out / ".unfinished" / "train" / "000001.tar").exists()
    spoil(out / "train" / "000001.tar")
    with pytest.raises(Changed, match=r"train.000001\.tar: not the shard that was written here; run again"):
        published(out)
    assert kept(out / "train") is None


def test_two_kills_one_after_the_other_change_nothing_either(tmp_path, earlier, staged):
    whole = laid_out(tmp_path / "whole", earlier, staged)
    published(whole)
    for first, second in ((3, 2), (9, 9), (14, 5), (20, 12)):
        out = laid_out(tmp_path / f"{first}-{second}", earlier, staged)
        for step in (first, second):
            with killed_at(step, FILE_CHANGES):
                published(out)
        published(out)
        assert contents(out) == contents(whole)


def test_what_is_published_names_its_shards_and_their_hashes(tmp_path, earlier, staged):
    out = laid_out(tmp_path, earlier, staged)
    published(out)
    manifest = json.loads((out / "test" / "manifest.json").read_text())
    assert manifest["samples"] == 2 and list(manifest["shards"]) == ["000000.tar"]
    assert json.loads((out / "val" / "sizes.json").read_text()) == {}
