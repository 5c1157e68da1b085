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
