import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.errors import ConfigError, DataError
from pathclip.sources import read_posts, table, table_rows
from pathclip.types import Malformed, Post
from tests.sources.spoiled import odd_values

COLUMNS = {"image": "file", "text": "caption"}


def read(path: Path, columns=COLUMNS, **options) -> list[Post | Malformed]:
    return list(read_posts("table", path, columns=columns, **options))


def test_csv_tsv_and_jsonl_of_the_same_rows_give_the_same_posts(tmp_path):
    rows = [("a.jpg", "lung, adenocarcinoma"), ("b.jpg", 'a "quoted" word')]
    (tmp_path / "t.csv").write_text('file,caption\na.jpg,"lung, adenocarcinoma"\nb.jpg,"a ""quoted"" word"\n')
    (tmp_path / "t.tsv").write_text(
        'file\tcaption\na.jpg\tlung, adenocarcinoma\nb.jpg\t"a ""quoted"" word"\n'
    )
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"file": f, "caption": c}) + "\n" for f, c in rows))
    posts = [read(tmp_path / name) for name in ("t.csv", "t.tsv", "t.jsonl")]
    assert posts[0] == posts[1] == posts[2]
    assert [(post.media[0].path, post.text) for post in posts[0]] == rows


def test_roles_fill_the_fields_of_the_post(tmp_path):
    (tmp_path / "t.csv").write_text(
        "n;file;caption;class;case;set;when;rights;by\n7;a.jpg;text;benign;P1;val;2021-05-06;CC0;Dr Who\n"
    )
    columns = COLUMNS | {
        "id": "n",
        "label": "class",
        "group": "case",
        "split": "set",
        "created_at": "when",
        "licence": "rights",
        "author": "by",
    }
    (post,) = read(tmp_path / "t.csv", columns, name="mine")
    assert (post.id, post.platform, post.label, post.case) == ("7", "mine", "benign", "P1")
    assert (post.split, post.licence) == ("val", "CC0")
    assert post.created_at.isoformat() == "2021-05-06T00:00:00+00:00"
    assert "Who" not in repr(post)


def test_captions_vary_by_row_and_repeat_from_run_to_run(tmp_path):
    (tmp_path / "t.csv").write_text(
        "file,caption,organ\n" + "".join(f"{n}.jpg,cancer,lung\n" for n in range(40))
    )
    captions = ["{text}", "H&E of {text}", "{organ}: {text}"]
    first = [post.text for post in read(tmp_path / "t.csv", captions=captions)]
    assert set(first) == {"cancer", "H&E of cancer", "lung: cancer"}
    assert first == [post.text for post in read(tmp_path / "t.csv", captions=captions)]


def test_where_selects_rows_by_value_or_list(tmp_path):
    (tmp_path / "t.csv").write_text("file,caption,set\na,x,lc\nb,x,oral\nc,x,qc\n")
    assert [p.id for p in read(tmp_path / "t.csv", where={"set": "oral"})] == ["b"]
    assert [p.id for p in read(tmp_path / "t.csv", where={"set": ["lc", "qc"]})] == ["a", "c"]


def test_rows_that_are_none_are_counted_with_their_line(tmp_path):
    (tmp_path / "t.csv").write_text("file,caption\na.jpg,good\n\nb.jpg\n,no image\nc.jpg,good\n")
    items = read(tmp_path / "t.csv")
    assert [item.id for item in items if isinstance(item, Post)] == ["a.jpg", "c.jpg"]
    assert [item.line for item in items if isinstance(item, Malformed)] == [4, 5]


def items_of(folder: Path, *rows: str) -> tuple[list[str], list[int]]:
    """The ids of the posts and the lines of what is malformed, of a table with these lines."""
    (folder / "t.csv").write_text("\n".join(["file,caption", *rows]) + "\n")
    items = read(folder / "t.csv")
    posts = [item.id for item in items if isinstance(item, Post)]
    return posts, [item.line for item in items if isinstance(item, Malformed)]


def test_an_unclosed_quote_costs_its_own_row_and_no_other(tmp_path):
    names = [f"{number}.jpg" for number in range(500)]
    rows = [f"{name},a lipoma" for name in names]
    rows[3] = '3.jpg,"a lipoma'
    assert items_of(tmp_path, *rows) == (names[:3] + names[4:], [5])


def test_an_unclosed_quote_before_quoted_cells_costs_its_own_row_and_no_other(tmp_path):
    rows = ['0.jpg,"a lipoma', '1.jpg,"fat, mature"', '2.jpg,"a ""lipoma"""', "3.jpg,fat"]
    assert items_of(tmp_path, *rows) == (["1.jpg", "2.jpg", "3.jpg"], [2])


def test_a_malformed_record_is_counted_at_its_first_line(tmp_path):
    rows = ['0.jpg,"a lipoma" of the back', '1.jpg,fat,"two', 'lines"', "2.jpg,fat"]
    assert items_of(tmp_path, *rows) == (["2.jpg"], [2, 3, 4])


def test_quoted_cells_may_hold_line_breaks(tmp_path):
    (tmp_path / "t.csv").write_text('file,"cap\ntion"\n0.jpg,"a lipoma\n\nof the ""back"""\n1.jpg,fat\n')
    posts = read(tmp_path / "t.csv", {"image": "file", "text": "cap\ntion"})
    assert [post.text.split() for post in posts] == [["a", "lipoma", "of", "the", '"back"'], ["fat"]]


def test_a_quoted_cell_of_more_than_a_hundred_lines_is_malformed(tmp_path):
    long = '0.jpg,"' + "word\n" * 100 + 'end"'
    posts, malformed = items_of(tmp_path, long, "1.jpg,fat")
    assert posts == ["1.jpg"] and malformed[0] == 2
    assert items_of(tmp_path, long.replace("word\n", "", 1), "1.jpg,fat") == (["0.jpg", "1.jpg"], [])


def test_a_line_too_long_to_read_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("pathclip.sources.dumps.MAX_LINE_BYTES", 40)
    assert items_of(tmp_path, "0.jpg," + "x" * 50, "1.jpg,fat") == (["1.jpg"], [2])
    assert items_of(tmp_path, '0.jpg,"fat', "x" * 50, 'fat"') == ([], [2, 3, 4])


def test_a_header_that_is_no_row_is_told(tmp_path):
    (tmp_path / "t.csv").write_text('file,"caption\n0.jpg,fat\n')
    with pytest.raises(DataError, match=r"t\.csv, line 1: no header"):
        read(tmp_path / "t.csv")


def test_empty_last_cells_of_a_tsv_are_kept(tmp_path):
    (tmp_path / "t.tsv").write_text("file\tcaption\tclass\na.jpg\tx\t\n")
    (post,) = read(tmp_path / "t.tsv", COLUMNS | {"label": "class"})
    assert post.label is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"image": "fil", "text": "caption"}}, "no column 'fil'.*Did you mean file"),
        ({"columns": {"image": "file"}}, "source.columns.text"),
        ({"columns": COLUMNS | {"lable": "x"}}, "Did you mean label"),
        ({"where": {"sett": "lc"}}, "no column 'sett'"),
        ({"captions": ["{txet}"]}, "no column 'txet'"),
    ],
)
def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path, options, message):
    (tmp_path / "t.csv").write_text("file,caption,set\na.jpg,x,lc\n")
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "t.csv", **options)


def test_an_empty_table_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match="header"):
        read(tmp_path / "t.csv")


def test_a_template_reaches_nothing_but_columns(tmp_path):
    (tmp_path / "t.csv").write_text("file,caption\na.jpg,x\n")
    (post,) = read(tmp_path / "t.csv", captions=["{text.__class__} {text}"])
    assert post.text == "{text.__class__} x"


def test_parquet_gives_the_posts_that_csv_gives(tmp_path):
    columns = {"file": ["a.jpg", "b.jpg"], "caption": ["lipoma", "naevus"], "class": ["x", None], "n": [1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1)
    (tmp_path / "t.csv").write_text("file,caption,class,n\na.jpg,lipoma,x,1\nb.jpg,naevus,,2\n")
    roles = COLUMNS | {"label": "class", "id": "n"}
    assert read(tmp_path / "t.parquet", roles) == read(tmp_path / "t.csv", roles)


def test_parquet_is_read_in_the_columns_that_are_needed(tmp_path):
    columns = {"file": [f"{n}.jpg" for n in range(10)], "caption": ["a"] * 10, "pixels": [b"x" * 100] * 10}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = list(table_rows.rows(tmp_path / "t.parquet", None, {"file", "caption"}))
    assert [number for number, *_ in found] == list(range(1, 11))
    assert all(set(row) == {"file", "caption"} for _, row, _ in found)


def test_times_of_parquet_are_times(tmp_path):
    moment = datetime(2021, 5, 6, 7, tzinfo=UTC)
    pq.write_table(pa.table({"file": ["a"], "caption": ["b"], "when": [moment]}), tmp_path / "t.parquet")
    (post,) = read(tmp_path / "t.parquet", COLUMNS | {"created_at": "when"})
    assert post.created_at == moment


def test_a_column_missing_in_parquet_is_told_at_once_with_the_nearest(tmp_path):
    pq.write_table(pa.table({"file": ["a"], "captoin": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=r"no column 'caption'.*Did you mean captoin"):
        table.read(tmp_path / "t.parquet", COLUMNS)


def test_parquet_that_breaks_off_is_malformed(tmp_path):
    pq.write_table(pa.table({"file": ["a"] * 99, "caption": ["b"] * 99}), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PAR1"):
        (tmp_path / "t.parquet").write_bytes(content)
        (bad,) = read(tmp_path / "t.parquet")
        assert isinstance(bad, Malformed) and bad.reason.startswith("no Parquet")


def test_the_columns_are_checked_when_called_and_not_at_the_first_post(tmp_path):
    (tmp_path / "t.csv").write_text("file,text\na,b\n")
    with pytest.raises(ConfigError, match="no column 'caption'"):
        table.read(tmp_path / "t.csv", COLUMNS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ";;"}, r"source\.delimiter: expected one sign"),
        ({"delimiter": 5}, r"source\.delimiter"),
        ({"captions": "{text}"}, r"source\.captions: expected"),
        ({"where": ["a"]}, r"source\.where: expected"),
        ({"name": None}, r"source\.name: expected"),
    ],
)
def test_an_option_of_the_wrong_kind_is_told(tmp_path, options, message):
    (tmp_path / "t.csv").write_text("file,caption\na,b\n")
    with pytest.raises(ConfigError, match=message):
        table.read(tmp_path / "t.csv", COLUMNS, **options)


def test_no_nul_gets_into_an_id_or_a_path(tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"file": "a\0.jpg", "caption": "b"}) + "\n")
    (post,) = read(tmp_path / "t.jsonl")
    assert (post.id, post.media[0].path) == ("a.jpg", "a.jpg")


SIGNS = st.text(alphabet='ab,;\t"\n\r\0\ud800é', max_size=40)


@given(rows=st.lists(SIGNS, max_size=4))
def test_no_lines_of_a_csv_crash_the_reader(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    path.write_bytes("\n".join(["file,caption", *rows]).encode("utf-8", "surrogatepass"))
    for item in read(path):
        assert isinstance(item, Malformed) or (item.id and "\0" not in item.id)


@given(rows=st.lists(st.tuples(SIGNS, SIGNS), min_size=1, max_size=4))
def test_every_row_that_a_csv_writer_wrote_is_accounted_for(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    plain = [[cell.replace("\0", "").replace("\ud800", "").replace("\r", "") for cell in row] for row in rows]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["file", "caption"], *plain])
    assert len(read(path)) == len(rows)


@given(file=odd_values, caption=odd_values)
def test_a_row_of_json_with_anything_in_it_is_accounted_for(tmp_path_factory, file, caption):
    path = tmp_path_factory.mktemp("fuzz") / "t.jsonl"
    path.write_text(json.dumps({"file": file, "caption": caption}) + "\n")
    (item,) = read(path)
    if isinstance(item, Post):
        item.text.encode()
        assert item.id and "\0" not in item.id + item.media[0].path
