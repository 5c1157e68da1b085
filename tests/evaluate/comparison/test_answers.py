"""What was answered can be read again as it was, and nothing else is taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from pathclip.errors import DataError
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


def _cut(path):
    write_answers(path, [answers()])
    path.write_bytes(path.read_bytes()[:-40])
