"""Pictures are given by their hashes, so that what is near to what can be read from the test."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pathclip import load
from pathclip.curate.dedup import DedupSettings
from pathclip.curate.embed import embed
from pathclip.curate.image_files import Place
from pathclip.curate.ledger import Ledger
from pathclip.curate.look import write_hashes
from pathclip.curate.pairs import make_pairs
from pathclip.types import Dropped

from .feed import jpeg, run, samples, tissue, tweet, write_feed


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger", "test") as opened:
        yield opened


def seen(ledger: Ledger, name: str, bits: int = 0, text: str = "", moment: float | None = None, **more: Any):
    """Notes a candidate `post_picture` and what was seen of its picture: by default bytes of its own."""
    post = name.partition("_")[0]
    facts = {"group": f"twitter:{post}", "sha256": "", "reason": "", "author": "", "panels": 1} | more
    (count,) = ledger.database.execute("select count(*) from candidate").fetchone()
    ledger.database.execute(
        "insert into candidate (id, post, grp, text, author, moment, media) values (?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            post,
            facts["group"],
            text or f"text of {name}",
            facts["author"],
            count if moment is None else moment,
            name,
        ),
    )
    for panel in range(facts["panels"]):
        sha256 = facts["sha256"] or f"{name}/{panel}".encode().hex()
        row = (name, panel, facts["reason"], "as seen", sha256, write_hashes((bits + (panel << 30),) * 8))
        ledger.database.execute(
            "insert or ignore into picture (media, panel, reason, detail, sha256, hashes, flags) "
            "values (?, ?, ?, ?, ?, ?, '[]')",
            row,
        )


def made(ledger: Ledger, **settings: Any) -> tuple[dict[str, str], list[Dropped]]:
    """Id → group of the pairs, in their order, and what fell."""
    make_pairs(ledger, DedupSettings(**settings))
    return dict(ledger.rows("select id, grp from pair order by number")), list(ledger.dropped())


def test_the_oldest_stays_whatever_the_order_of_the_dump(ledger):
    seen(ledger, "9_a", moment=30.0)
    seen(ledger, "8_b", moment=10.0)
    seen(ledger, "7_c", moment=20.0)
    pairs, dropped = made(ledger)
    assert list(pairs) == ["8_b"]
    assert dropped == [
        Dropped("7_c", "near_duplicate", "0 bits from 8_b", "7"),
        Dropped("9_a", "near_duplicate", "0 bits from 8_b", "9"),
    ]


def test_candidates_without_a_date_come_after_those_with_one(ledger):
    seen(ledger, "1_a")
    ledger.database.execute("update candidate set moment = null")
    seen(ledger, "2_b", moment=99.0)
    assert list(made(ledger)[0]) == ["2_b"]


def test_the_same_picture_with_the_same_caption_is_a_duplicate(ledger):
    seen(ledger, "1_a", sha256="aa", text="the same")
    seen(ledger, "2_b", sha256="aa", text="the same")
    seen(ledger, "3_c", bits=0xFFFF, text="the same")
    pairs, dropped = made(ledger)
    assert list(pairs) == ["1_a", "3_c"]
    assert dropped == [Dropped("2_b", "duplicate_pair", "as 1_a", "2")]


def test_the_same_picture_with_another_caption_is_a_near_duplicate(ledger):
    seen(ledger, "1_a", sha256="aa", text="one")
    seen(ledger, "2_b", sha256="aa", text="other")
    assert [row.reason for row in made(ledger)[1]] == ["near_duplicate"]


def test_a_picture_that_breaks_a_rule_falls_for_it_and_its_repetition_as_a_duplicate(ledger):
    seen(ledger, "1_a", sha256="aa", text="t", reason="not_pathology")
    seen(ledger, "2_b", sha256="aa", text="t", reason="not_pathology")
    pairs, dropped = made(ledger)
    assert not pairs
    assert [(row.id, row.reason) for row in dropped] == [("1_a", "not_pathology"), ("2_b", "duplicate_pair")]


def test_pictures_that_nobody_could_read_are_no_duplicates_of_each_other(ledger):
    for name in ("1_a", "2_b"):
        seen(ledger, name, text="t", reason="image_unreachable")
    ledger.database.execute("update picture set sha256 = '', hashes = ''")
    assert [row.reason for row in made(ledger)[1]] == ["image_unreachable"] * 2


def test_pictures_of_one_post_are_no_near_duplicates_of_each_other(ledger):
    seen(ledger, "1_a")
    seen(ledger, "1_b", bits=1)
    assert list(made(ledger)[0]) == ["1_a", "1_b"]


def test_posts_that_repeat_one_dropped_picture_are_one_case(ledger):
    """The second picture is near the first, the third near the second alone: still one case."""
    seen(ledger, "A_1", 0b0)
    seen(ledger, "B_1", 0b11111)
    seen(ledger, "B_2", 0xFFFF << 40)
    seen(ledger, "C_1", 0b111111111)
    pairs, dropped = made(ledger)
    assert [row.id for row in dropped] == ["B_1"]
    assert pairs == {"A_1": "twitter:A", "B_2": "twitter:A", "C_1": "twitter:A"}


@pytest.mark.parametrize("near_duplicates", ["drop", "group"])
def test_the_groups_are_the_same_whether_the_later_picture_is_dropped_or_kept(ledger, near_duplicates):
    seen(ledger, "3_a")
    seen(ledger, "1_b", bits=0b111)
    seen(ledger, "1_c", bits=0xFFFF)
    seen(ledger, "2_d", bits=0xFFFF0000)
    pairs, _ = made(ledger, near_duplicates=near_duplicates)
    assert {pairs["3_a"], pairs["1_c"]} == {"twitter:1"} and pairs["2_d"] == "twitter:2"
    assert ("1_b" in pairs) == (near_duplicates == "group")


def test_a_duplicate_that_is_dropped_still_joins_the_other_pictures_of_its_post(ledger):
    seen(ledger, "1_a", sha256="aa", text="t")
    seen(ledger, "2_b", sha256="aa", text="t")
    seen(ledger, "2_c", bits=0xFFFF)
    pairs, _ = made(ledger)
    assert pairs == {"1_a": "twitter:1", "2_c": "twitter:1"}


def test_the_very_same_picture_is_one_group_even_where_nobody_looks_for_near_duplicates(ledger):
    seen(ledger, "1_a", sha256="aa", text="one")
    seen(ledger, "2_b", sha256="aa", text="other")
    seen(ledger, "3_c", bits=1)
    pairs, dropped = made(ledger, near_duplicates="off")
    assert pairs == {"1_a": "twitter:1", "2_b": "twitter:1", "3_c": "twitter:3"}
    assert not dropped


@pytest.mark.parametrize(("distance", "fell"), [(3, []), (4, ["2_b"])])
def test_near_is_what_differs_in_at_most_so_many_bits(ledger, distance, fell):
    seen(ledger, "1_a", bits=0)
    seen(ledger, "2_b", bits=0b1111)
    assert [row.id for row in made(ledger, max_distance=distance)[1]] == fell


def test_each_panel_of_a_figure_is_a_pair_of_its_own_in_one_group(ledger):
    seen(ledger, "1_a", bits=0xAAAA, panels=3)
    pairs, _ = made(ledger)
    assert pairs == {name: "twitter:1" for name in ("1_a", "1_a-panel1", "1_a-panel2")}


CAPTION = "A fine and mature lipoma below the skin of the left shoulder blade, excised whole"


@pytest.mark.parametrize(("captions", "group"), [("group", "twitter:1"), ("off", "twitter:2")])
def test_captions_that_one_author_repeats_join_their_groups(ledger, captions, group):
    seen(ledger, "1_a", bits=0, text=CAPTION, author="ann")
    seen(ledger, "2_b", bits=0xFFFF, text=CAPTION, author="ann")
    seen(ledger, "3_c", bits=0xFFFF0000, text=CAPTION, author="bob")
    pairs, dropped = made(ledger, captions=captions)
    assert pairs == {"1_a": "twitter:1", "2_b": group, "3_c": "twitter:3"}
    assert not dropped


def test_what_was_decided_is_not_decided_again(ledger):
    seen(ledger, "1_a")
    first = made(ledger)
    seen(ledger, "2_b")
    assert made(ledger) == first


def test_a_search_that_was_broken_off_is_made_again(ledger, monkeypatch):
    for n in range(20):
        seen(
            ledger,
            f"{n}_p",
            bits=int(np.random.default_rng(n // 2).integers(2**62)),
            author="ann",
            text=CAPTION,
        )

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathclip.curate.pairs._name_groups", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(ledger)
    assert list(ledger.dropped())  # half of it was noted
    pairs, dropped = made(ledger)
    assert len(pairs) == len(dropped) == 10
    assert {*pairs.values()} == {"twitter:0"}


def test_pictures_of_one_model_embedding_are_near_duplicates_by_their_angle(tmp_path, tiny_model):
    """The tiny model knows the mean colour alone, which a crop has too; no hash finds that."""
    red, other = tissue(1, 320), tissue(2, 320)
    posts = [tweet(n, f"A lipoma of case {n} #BSTpath", f"3_{n}", at=f"2021-0{n}-01") for n in (1, 2, 3)]
    pictures = {"3_1": jpeg(red), "3_2": jpeg(red.crop((10, 10, 250, 250))), "3_3": jpeg(other)}
    overrides = [*write_feed(tmp_path, posts, pictures), "images.pathology=false"]
    assert len(samples(run(overrides).out)) == 3
    out = run(overrides, f"dedup.model={tiny_model}", "dedup.min_cosine=0.99").out
    assert len(samples(out)) < 3


def test_embeddings_are_kept_in_the_order_of_the_pairs(tmp_path, tiny_model):
    """A red, a green and a blue picture, as the tiny model sees them."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    encoder = load(tiny_model, runtime="onnx")
    pictures = [Image.new("RGB", (120, 120), colour) for colour in colours]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    with Ledger(tmp_path / "ledger", "test") as ledger:
        for number in range(3):
            file = tmp_path / f"{number}.png"
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            seen(ledger, f"{number}_p", bits=0xFFFF << (16 * number), sha256=sha256)
            place = Place(str(file)).write()
            ledger.database.execute("update picture set place = ? where media = ?", (place, f"{number}_p"))
        make_pairs(ledger, DedupSettings(near_duplicates="off"))
        table = embed(ledger, str(tiny_model))
    assert table.dtype == np.float16 and table.shape == (3, encoder.dim)
    assert np.allclose(table, encoder.encode_images(pictures), atol=1e-3)
