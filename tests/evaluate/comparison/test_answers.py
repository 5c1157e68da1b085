"""What was answered can be read again as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.evaluate.comparison import answers as kept_answers
from pathclip.evaluate.comparison.answers import read_answers, write_answers
from tests.evaluate.reports import answers, ranks


def test_what_was_written_is_read_again_set_by_set(tmp_path):
    written = [answers([3], leaked=None), ranks([1, 4, 2]), answers([], precision="fp32")]
    found = read_answers(write_answers(tmp_path / "deep" / "answers.parquet", written))
    for one, other in zip(written, found, strict=True):
        assert (one.about, one.items, one.groups) == (other.about, other.items, other.groups)
        assert (one.truth, one.answer) == (other.truth, other.answer)
        for mine, theirs in ((one.sure, other.sure), (one.rank, other.rank)):
            np.testing.assert_array_equal(mine, theirs) if mine is not None else None
            assert (mine is None) == (theirs is None)


def test_a_run_without_answers_leaves_a_file_that_says_so(tmp_path):
    assert read_answers(write_answers(tmp_path / "answers.parquet", [])) == []


def test_the_same_answers_give_the_same_bytes(tmp_path):
    first = write_answers(tmp_path / "a.parquet", [answers([1, 2]), ranks([5, 1])])
    second = write_answers(tmp_path / "b.parquet", [answers([1, 2]), ranks([5, 1])])
    assert first.read_bytes() == second.read_bytes()


def test_an_earlier_file_stays_where_the_writing_fails(tmp_path):
    path = write_answers(tmp_path / "answers.parquet", [answers()])
    before = path.read_bytes()
    bad = answers()
    object.__setattr__(bad, "groups", bad.groups[1:])
    with pytest.raises(ValueError, match="length"):
        write_answers(path, [bad])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file; run `pathclip evaluate` again"),
        (lambda path: path.write_bytes(b"PAR1 but no parquet"), "not a file of answers, or damaged"),
        (lambda path: _other_table(path), "version none of the answers, but this pathclip reads 1"),
        (lambda path: _cut(path), "not a file of answers, or damaged"),
        (lambda path: _marked_as_ours(path), "its columns are not those of answers"),
        (lambda path: _about(path, b"[1]"), "do not say whose answers these are"),
        (lambda path: _about(path, b"[" * 100_000), "not a file of answers, or damaged"),
    ],
)
def test_a_file_that_is_not_ours_gets_one_clear_line(make, message, tmp_path):
    path = tmp_path / "answers.parquet"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        read_answers(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def _other_table(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), path)


def _marked_as_ours(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {kept_answers._VERSION: b"1", kept_answers._ABOUT: b"[{}]"}
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), path)


def _about(path, content):
    import pyarrow.parquet as pq

    write_answers(path, [answers()])
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, kept_answers._ABOUT: content}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _cut(path):
    write_answers(path, [answers()])
    path.write_bytes(path.read_bytes()[:-40])


def test_more_rows_than_can_be_compared_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = write_answers(tmp_path / "answers.parquet", [answers()])
    monkeypatch.setattr(kept_answers, "MOST_ROWS", 59)
    with pytest.raises(DataError, match="60 rows, more than 59; refused"):
        read_answers(path)
    monkeypatch.undo()
    monkeypatch.setattr(kept_answers, "MOST_BYTES", 100)
    with pytest.raises(DataError, match="MiB of answers, more than 0; refused"):
        read_answers(path)


MEMORY = """
import re, sys
from pathlib import Path
from pathclip.evaluate.comparison.answers import read_answers
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
import pyarrow.parquet
before = peak()
found = read_answers(sys.argv[1])[0]
assert len(found.items) == 300_000 and len(found.items[7]) == 3000
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_long_text_that_a_small_file_repeats_is_held_once(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    n, path = 300_000, tmp_path / "answers.parquet"
    metadata = {kept_answers._VERSION: b"1", kept_answers._ABOUT: json.dumps([{}]).encode()}
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["x" * 3000]).cast(pa.string())
    short = pa.array(["t"] * n)
    columns = [pa.array(np.zeros(n, np.int32)), long, short, short, short]
    columns += [pa.nulls(n, pa.float64()), pa.nulls(n, pa.int64())]
    schema = kept_answers._schema(pa).with_metadata(metadata)
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")
    assert path.stat().st_size < 200_000
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < 300, done.stderr  # MB; 900 MB if each row had its own
