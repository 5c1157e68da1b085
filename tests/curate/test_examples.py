from pathlib import Path

import pytest

from pathclip.curate.dedup import DedupSettings
from pathclip.curate.engine import Engine
from pathclip.curate.examples import EXAMPLES, draw_examples
from pathclip.curate.image_files import PictureFiles
from pathclip.curate.images import ImageSettings
from pathclip.curate.ledger import Ledger
from pathclip.curate.look import look
from pathclip.curate.pairs import make_pairs
from pathclip.curate.rules import RuleSettings
from pathclip.curate.select import select
from pathclip.curate.text import TextCleaner
from pathclip.sources.table import read as read_table
from pathclip.types import Media, Post

from .feed import jpeg, tissue

RULES = RuleSettings(question="published")


def post(n: int, text: str = "a fine lipoma", **more) -> Post:
    return Post(id=str(n), platform="twitter", text=text, media=(Media(f"k{n}"),), **more)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger", "test") as opened:
        yield opened


def judged(ledger: Ledger, folder: Path, *posts: Post, deleted: frozenset[str] = frozenset()) -> PictureFiles:
    """Posts with a picture each, taken through all rules."""
    folder.mkdir(exist_ok=True)
    for one in posts:
        for media in one.media:
            (folder / f"{media.key}.jpg").write_bytes(jpeg(tissue(int(one.id))))
    list(ledger.posts.add("a", posts))
    select(ledger, RULES, TextCleaner(), deleted, {}, Engine(workers=1))
    files = PictureFiles(folder)
    look(ledger, files, ImageSettings(), Engine(workers=1))
    make_pairs(ledger, DedupSettings())
    return files


def test_a_row_is_shown_with_its_text_and_its_picture(ledger, tmp_path):
    files = judged(ledger, tmp_path / "i", post(1), post(2, "any ideas?"))
    examples = draw_examples(ledger, files, 0)
    assert list(examples) == ["kept", "question"]
    (kept,), (asked,) = examples["kept"], examples["question"]
    assert (kept.id, kept.text, kept.picture) == ("1_k1", "a fine lipoma", jpeg(tissue(1)))
    assert (asked.id, asked.text, asked.picture) == ("2", "any ideas?", jpeg(tissue(2)))
    assert asked.detail == "?"


def test_of_many_rows_ten_are_drawn_the_same_ones_for_a_seed(ledger, tmp_path):
    files = judged(ledger, tmp_path / "i", *(post(n, f"a lipoma, or? {n}") for n in range(40)))
    one, again, other = (draw_examples(ledger, files, seed)["question"] for seed in (0, 0, 1))
    assert len(one) == EXAMPLES and one == again
    assert {row.id for row in one} != {row.id for row in other}
    drawn = {row.id for seed in range(60) for row in draw_examples(ledger, files, seed)["question"]}
    assert len(drawn) == 40  # each has its chance


def test_the_examples_do_not_depend_on_the_order_of_the_rows(tmp_path):
    found = []
    for name, order in (("a", 1), ("b", -1)):
        with Ledger(tmp_path / name, "test") as ledger:
            files = judged(
                ledger, tmp_path / "i", *[post(n, f"a lipoma, or? {n}") for n in range(40)][::order]
            )
            found.append(draw_examples(ledger, files, 0)["question"])
    assert found[0] == found[1]


def test_reasons_stand_in_the_order_of_the_rules(ledger, tmp_path):
    posts = [post(1, ""), post(2, "any ideas?"), post(3, flags=frozenset({"retweet"})), post(4), post(5)]
    files = judged(ledger, tmp_path / "i", *posts, deleted=frozenset({"5"}))
    assert list(draw_examples(ledger, files, 0)) == ["kept", "deleted", "retweet", "question", "too_short"]


@pytest.mark.parametrize("flag", ["sensitive", "withheld", "deleted"])
def test_what_must_not_be_shown_is_marked_whatever_it_fell_for(ledger, tmp_path, flag):
    marked = post(1, "any ideas?", flags=frozenset({flag, "retweet"}))
    files = judged(ledger, tmp_path / "i", marked)
    (shown,) = (row for rows in draw_examples(ledger, files, 0).values() for row in rows)
    assert shown.hidden


def test_a_picture_that_went_missing_meanwhile_is_left_out(ledger, tmp_path):
    files = judged(ledger, tmp_path / "i", post(1))
    (tmp_path / "i" / "k1.jpg").unlink()
    assert draw_examples(ledger, files, 0)["kept"][0].picture is None


def test_a_row_of_a_table_that_fell_is_shown_with_its_text(ledger, tmp_path):
    """Rows of a table are kept under names of their own, since ids may occur again."""
    (tmp_path / "1.jpg").write_bytes(jpeg(tissue(1)))
    (tmp_path / "t.csv").write_text("image,text\n1.jpg,any ideas?\n")
    columns = {"image": "image", "text": "text"}
    list(ledger.posts.add("t.csv", read_table(tmp_path / "t.csv", columns), True))
    select(ledger, RULES, TextCleaner(), frozenset(), {}, Engine(workers=1))
    (shown,) = draw_examples(ledger, PictureFiles(tmp_path), 0)["question"]
    assert (shown.text, shown.picture) == ("any ideas?", jpeg(tissue(1)))
