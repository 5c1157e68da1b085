from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from pathclip.commands.picture_sources import names_of_stream, open_source
from pathclip.errors import DataError


class Pieces:
    """A stream whose bytes come in the given pieces, as from a pipe."""

    def __init__(self, *pieces: bytes):
        self.waiting = list(pieces)

    def read1(self, _most: int) -> bytes:
        return self.waiting.pop(0) if self.waiting else b""


def table(tmp_path: Path, text: str, name: str = "tiles.csv") -> Path:
    file = tmp_path / name
    file.write_bytes(text.encode())
    return file


def given(source) -> list[str]:
    return [row.given for row in source.rows()]


def test_paths_of_a_table_lie_beside_it_and_its_other_columns_come_along(tmp_path):
    file = table(tmp_path, 'case,path,note\n7,a.png,"x, ""y"""\n8,/b.png,=1+1\n')
    source = open_source([str(file)])
    assert (source.column, source.columns, source.table) == ("path", ("case", "note"), file)
    first, second = source.rows()
    assert (first.given, first.path, first.columns) == ("a.png", tmp_path / "a.png", ("7", 'x, "y"'))
    assert (second.file(), second.columns) == (Path("/b.png"), ("8", "=1+1"))
    assert source.count() == 2


def test_the_column_of_paths_can_have_any_name(tmp_path):
    source = open_source([str(table(tmp_path, "path\tfile\nx\ta.png\n", "tiles.tsv"))], "file")
    assert given(source) == ["a.png"]
    assert (source.column, source.columns) == ("file", ("path",))


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_table(tmp_path):
    source = open_source([str(table(tmp_path, "\ufeffpath,b\r\na.png,1\r\n\r\n"))])
    assert [(row.given, row.columns) for row in source.rows()] == [("a.png", ("1",))]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a.png", "line 3: 1 cells, but the first line has 2"),
        ("a,b,c", "3 cells"),
        (" ,b", "line 3: no path"),
    ],
)
def test_a_wrong_line_of_a_table_is_the_fault_of_one_picture(tmp_path, line, fault):
    source = open_source([str(table(tmp_path, f"path,n\nx.png,1\n{line}\ny.png,2\n"))])
    rows = list(source.rows())
    assert [row.given for row in rows if row.fault is None] == ["x.png", "y.png"]
    assert len(rows[1].columns) == 1
    with pytest.raises(DataError, match=fault):
        rows[1].file()


@pytest.mark.parametrize(
    ("text", "column", "fault"),
    [
        ("file,n\n", None, "no column 'path'; name one by --column: file, n"),
        ("path,n\n", "file", "no column 'file'"),
        ("path,n,n\n", None, "two columns are called 'n'"),
        ("", None, "empty; its first line names"),
        ("path\n\xe9".encode("latin-1"), None, "not UTF-8 text"),
        ('path\n"a', None, "line 2: not a table"),
    ],
    ids=["column", "named column", "twice", "empty", "encoding", "quotes"],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, text, column, fault):
    file = tmp_path / "tiles.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=fault):
        list(open_source([str(file)], column).rows())


def test_a_table_or_stdin_stands_alone_and_a_column_needs_a_table(tmp_path):
    file = str(table(tmp_path, "path\n"))
    for names in ([file, "a.png"], ["-", "a.png"], [file, file]):
        with pytest.raises(DataError, match="given alone"):
            open_source(names)
    with pytest.raises(DataError, match="--column is for a table"):
        open_source(["a.png"], "file")
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        open_source([str(tmp_path / "gone.csv")])


@pytest.mark.parametrize(
    ("pieces", "names"),
    [
        ([b"a.png\nb c.png\n"], ["a.png", "b c.png"]),
        ([b"a.png\r\n\r\nb.png"], ["a.png", "b.png"]),
        ([b"a\nb.png\0c.png\0"], ["a\nb.png", "c.png"]),
        ([b"a.p", b"ng\nb", b".png\n"], ["a.png", "b.png"]),
        ([b"a.p", b"ng\0b", b"\r.png\0"], ["a.png", "b\r.png"]),
        ([b"caf\xe9.png\n"], [os.fsdecode(b"caf\xe9.png")]),
        ([], []),
    ],
    ids=str,
)
def test_names_come_from_a_stream_line_by_line_or_with_nul_bytes_between(pieces, names):
    assert list(names_of_stream(Pieces(*pieces))) == names


def test_a_stream_without_names_is_a_fault():
    with pytest.raises(DataError, match="no names of pictures came"):
        list(open_source(["-"], stdin=Pieces(b"\n\n")).rows())
    assert [row.given for row in open_source(["-"], stdin=Pieces(b"a.png\n")).rows()] == ["a.png"]


def test_a_name_is_handed_on_before_the_stream_ends():
    stream = Pieces(b"a.png\n", b"b.png\n")
    assert next(names_of_stream(stream)) == "a.png"
    assert stream.waiting == [b"b.png\n"]


def test_a_stream_that_has_no_names_is_not_collected_for_ever():
    with pytest.raises(DataError, match="more than 64 KiB"):
        list(names_of_stream(io.BytesIO(b"x" * 1_000_000)))


def test_names_on_stdin_are_gone_through_once_and_not_counted():
    source = open_source(["-"], stdin=io.BytesIO(b"a.png\nb.png\n"))
    assert source.count() is None
    assert given(source) == ["a.png", "b.png"]


def test_a_folder_of_which_the_name_ends_like_a_table_is_a_folder(tmp_path):
    (tmp_path / "tiles.csv").mkdir()
    (tmp_path / "tiles.csv/a.png").touch()
    assert given(open_source([str(tmp_path / "tiles.csv")])) == [str(tmp_path / "tiles.csv/a.png")]


def test_a_folder_is_counted_and_then_gone_through_again(tmp_path):
    for name in ("a.png", "b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_source([str(tmp_path)])
    assert source.count() == 2
    assert len(given(source)) == 2


def test_a_name_that_is_too_long_is_left_for_its_own_line(tmp_path):
    names = [str(tmp_path / ("x" * 300)), str(tmp_path / ("[" + "x" * 300 + ".png"))]
    assert given(open_source(names[:1])) == names[:1]
    with pytest.raises(DataError, match="matches no file"):
        open_source(names[1:])
    with pytest.raises(DataError, match="cannot be read"):
        open_source([names[0] + ".csv"])


def test_a_pattern_that_finds_a_file_by_several_ways_gives_it_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x.png").touch()
    assert given(open_source([f"{tmp_path}/**/**/*.png"])) == [str(tmp_path / "a/b/x.png")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_table_that_is_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DataError, match="a table is read twice"):
        open_source([str(tmp_path / "t.csv")])
