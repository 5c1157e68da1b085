import json
from pathlib import Path

import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.sources import read_posts
from pathclip.types import Malformed, Post

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
