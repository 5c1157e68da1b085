from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pathclip.errors import DataError
from pathclip.sources import read_posts
from pathclip.sources.synthetic import IMAGE_REASONS, KEPT, NOISE, Feed, make_feed
from pathclip.types import Malformed, Post

POSTS, SIZE = 120, 48


def make(folder: Path, seed: int = 0, workers: int = 1) -> Feed:
    return make_feed(folder, POSTS, seed, SIZE, workers)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> Feed:
    return make(tmp_path_factory.mktemp("synthetic") / "feed")


@pytest.fixture(scope="module")
def truth(feed) -> list[dict]:
    return [json.loads(line) for line in feed.truth.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def posts(feed) -> dict[str, Post]:
    found = read_posts("twitter", feed.posts)
    return {post.id: post for post in found if isinstance(post, Post)}


def tweets(feed: Feed) -> list[dict]:
    """The posts as the dump holds them."""
    found = []
    for line in feed.posts.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found += json.loads(line)["data"]
    return found


def media(truth, reason):
    return [row for row in truth if row["kind"] == "media" and row["reason"] == reason]


def test_the_feed_is_the_same_byte_for_byte_whatever_the_workers(feed, tmp_path):
    again = make(tmp_path / "again", workers=2)
    assert contents(again.folder) == contents(feed.folder)


def test_another_seed_gives_another_feed(feed, tmp_path):
    other = make(tmp_path / "other", seed=1)
    assert other.posts.read_bytes() != feed.posts.read_bytes()


def test_truth_covers_every_post_and_every_picture_once(truth, posts):
    on_posts = Counter(row["id"] for row in truth if row["kind"] == "post")
    on_media = Counter(row["id"] for row in truth if row["kind"] == "media")
    assert on_posts == Counter(posts.keys())
    assert on_media == Counter(item.key for post in posts.values() for item in post.media)
    assert len(posts) == POSTS


def test_every_kind_of_noise_comes_at_its_rate(feed):
    assert {reason: feed.counts[reason] for reason in NOISE} == {
        reason: max(1, round(rate * POSTS)) for reason, rate in NOISE.items()
    }


def test_kept_counts_the_pairs_of_pictures_and_of_answers(feed, truth):
    answers = round(KEPT["reply_with_diagnosis"] * POSTS) + round(KEPT["answered_question"] * POSTS)
    assert feed.counts["kept"] == len(media(truth, "kept")) + answers


def test_classes_are_balanced_among_the_kept_posts(truth):
    found = Counter(row["label"] for row in media(truth, "kept"))
    assert len(found) == 9
    assert max(found.values()) <= 2 * min(found.values())


def test_malformed_lines_are_those_that_the_truth_names(feed, truth):
    found = [item.line for item in read_posts("twitter", feed.posts) if isinstance(item, Malformed)]
    assert found == sorted(int(row["id"]) for row in truth if row["kind"] == "line")


def test_the_api_flags_are_set_where_the_truth_says_so(truth, posts):
    for row in truth:
        if row["kind"] == "post":
            flags = posts[row["id"]].flags
            for flag in ("retweet", "sensitive", "withheld"):
                assert (flag in flags) == (row["reason"] == flag)


def test_tombstones_are_the_deleted_posts(feed, truth):
    deleted = [row["id"] for row in truth if row["kind"] == "post" and row["reason"] == "deleted"]
    assert feed.tombstones.read_text().split() == deleted


def test_pictures_lie_where_the_reader_looks_for_them(feed, truth):
    for row in truth:
        if row["kind"] == "media":
            exists = (feed.images / f"{row['id']}.jpg").is_file()
            assert exists == (row["reason"] != "image_unreachable")


def test_broken_pictures_do_not_decode_and_all_others_do(feed, truth):
    for row in truth:
        if row["kind"] != "media" or row["reason"] == "image_unreachable":
            continue
        try:
            with Image.open(feed.images / f"{row['id']}.jpg") as picture:
                picture.load()
            decodes = True
        except OSError:
            decodes = False
        assert decodes == (row["reason"] != "image_undecodable"), row


def test_exact_copies_repeat_bytes_and_text_of_an_earlier_kept_picture(feed, truth, posts):
    owner = {item.key: post for post in posts.values() for item in post.media}
    kept = {row["id"] for row in media(truth, "kept")}
    for row in media(truth, "duplicate_pair"):
        original = row["duplicate_of"]
        assert original in kept
        bytes_of = [(feed.images / f"{key}.jpg").read_bytes() for key in (row["id"], original)]
        assert bytes_of[0] == bytes_of[1]
        texts = [owner[key].text.rsplit(" ", 1)[0] for key in (row["id"], original)]
        assert texts[0] == texts[1]
        assert owner[original].created_at < owner[row["id"]].created_at


def test_near_copies_differ_in_bytes_but_share_the_perceptual_hash(feed, truth):
    imagehash = pytest.importorskip("imagehash")
    for row in media(truth, "near_duplicate"):
        files = [feed.images / f"{key}.jpg" for key in (row["id"], row["duplicate_of"])]
        assert files[0].read_bytes() != files[1].read_bytes()
        copy, original = (Image.open(file) for file in files)
        turned = [original.transpose(way) for way in Image.Transpose]
        hashes = [imagehash.phash(picture) for picture in (original, *turned)]
        assert min(imagehash.phash(copy) - other for other in hashes) <= 6


def test_copies_answers_and_retweets_share_the_group_of_their_original(feed, truth):
    rows = {row["id"]: row for row in truth if row["kind"] in ("post", "media")}
    originals = [(row["id"], row["duplicate_of"], "copied") for row in rows.values() if row["duplicate_of"]]
    for tweet in tweets(feed):
        for reference in tweet.get("referenced_tweets", []):
            originals.append((tweet["id"], reference["id"], reference["type"]))
    assert {kind for *_, kind in originals} == {"copied", "replied_to", "retweeted"}
    for row, original, kind in originals:
        assert rows[row]["split_group"] == rows[original]["split_group"], kind


def test_the_kept_answer_is_the_most_liked_of_its_thread(truth, posts):
    reason = {row["id"]: row["reason"] for row in truth if row["kind"] == "post"}
    threads: dict[str, list[Post]] = {}
    for post in posts.values():
        if post.in_reply_to:
            threads.setdefault(post.conversation, []).append(post)
    for parent, answers in threads.items():
        kept = [post for post in answers if reason[post.id] == "kept"]
        assert len(kept) <= 1
        if kept:
            assert kept[0] == max(answers, key=lambda post: post.metrics["like_count"])
        assert reason[parent] == "kept" or (reason[parent] == "question" and kept)
        assert posts[parent].media


def test_some_questions_fall_while_their_most_liked_answer_is_kept(truth, posts):
    row = {row["id"]: row for row in truth if row["kind"] == "post"}
    answers = [post for post in posts.values() if post.in_reply_to and row[post.id]["reason"] == "kept"]
    asked = [post for post in answers if row[post.in_reply_to]["reason"] == "question"]
    assert len(asked) == round(KEPT["answered_question"] * POSTS)
    for post in asked:
        question = row[post.in_reply_to]
        assert row[post.id]["split_group"] == question["split_group"] == question["id"]
        assert row[post.id]["label"] == question["label"]
        assert [r["reason"] for r in media(truth, "question") if r["post"] == question["id"]] == ["question"]


def test_some_kept_captions_hold_a_question_that_nobody_is_to_answer(truth, posts):
    owner = {row["post"] for row in media(truth, "kept")}
    asking = [name for name in owner if "?" in posts[name].text]
    assert len(asking) == round(KEPT["rhetorical_question"] * POSTS)


def test_the_picture_of_an_advertisement_is_tissue_so_that_only_its_words_tell(truth):
    found = media(truth, "advertisement")
    assert found and all(row["label"] for row in found)


def test_every_answer_that_is_not_most_liked_stands_beside_a_kept_one(truth, posts):
    reason = {row["id"]: row["reason"] for row in truth if row["kind"] == "post"}
    won = {posts[id_].conversation for id_ in reason if reason[id_] == "kept" and posts[id_].in_reply_to}
    assert all(posts[id_].conversation in won for id_ in reason if reason[id_] == "reply_not_most_liked")


def test_several_pictures_of_a_post_share_its_class(truth):
    labels: dict[str, list[str]] = {}
    for row in media(truth, "kept"):
        labels.setdefault(row["post"], []).append(row["label"])
    several = [found for found in labels.values() if len(found) > 1]
    assert len(several) == round(KEPT["several_images"] * POSTS)
    assert all(len(set(found)) == 1 and len(found) <= 4 for found in several)


def test_posts_spread_over_two_years_in_order(posts):
    moments = [post.created_at for post in posts.values() if "edited" not in post.flags]
    assert moments == sorted(moments)
    assert 600 < (moments[-1] - moments[0]).days <= 731


def test_a_post_without_noise_on_itself_is_kept_even_if_its_picture_is_not(truth):
    reasons = {row["id"]: row["reason"] for row in truth if row["kind"] == "post"}
    for reason in IMAGE_REASONS:
        assert all(reasons[row["post"]] == "kept" for row in media(truth, reason))


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(DataError, match="no synthetic feed"):
        make(tmp_path)
    assert (tmp_path / "thesis.docx").read_text() == "years of work"


def test_too_few_posts_for_every_noise_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs 60 posts, not 10"):
        make_feed(tmp_path / "feed", posts=10)
