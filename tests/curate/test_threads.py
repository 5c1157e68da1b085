"""What belongs to one case stays together, and goes together, also where a dump names no conversation."""

from pathlib import Path

from pathclip.curate.curate import curate
from pathclip.curate.withdraw import withdraw
from pathclip.launch import compose
from pathclip.shards.reader import read_samples
from pathclip.sources import read_posts

from .feed import jpeg, reply, tissue, tweet, write_feed

NAMES = ("train", "val", "test")


def run(overrides: list[str], *more: str):
    return curate(compose("curate", [*overrides, "workers=1", *more]))


def metas(out: Path) -> dict[str, dict]:
    return {sample.key: dict(sample.meta) for name in NAMES for sample in read_samples(out / name)}


def answer(number: int, to: int, text: str, *media: str) -> dict:
    """An answer without a conversation, as dumps have it that were fetched without that field."""
    post = reply(number, to, text)
    del post["conversation_id"]
    post["attachments"] = {"media_keys": list(media)}
    return post


CHAIN = [
    tweet(1, "A fine lipoma of the arm #BSTpath", "3_1", at="2021-01-01"),
    answer(2, 1, "Thanks for sharing this"),
    answer(3, 2, "The stain of this lipoma shows fat cells #BSTpath", "3_3"),
    tweet(4, "Melanoma of the skin in another person #dermpath", "3_4", at="2021-03-01"),
]
IMAGES = {f"3_{n}": jpeg(tissue(n)) for n in range(1, 9)}


def test_an_answer_with_a_picture_is_of_the_group_of_the_first_post_above_it(tmp_path):
    found = metas(run(write_feed(tmp_path, CHAIN, IMAGES), "split.by=hash").out)
    assert found["3_3_3"]["group"] == found["1_3_1"]["group"] == "twitter:1"
    assert found["4_3_4"]["group"] == "twitter:4"


def test_two_answers_to_a_post_that_the_dump_lacks_are_one_group(tmp_path):
    posts = [answer(n, 99, f"Lipoma of field {n} #BSTpath", f"3_{n}") for n in (1, 2)]
    found = metas(run(write_feed(tmp_path, posts, IMAGES), "split.by=hash").out)
    assert {meta["group"] for meta in found.values()} == {"twitter:99"}


def test_a_quote_with_a_picture_is_never_split_from_what_it_quotes(tmp_path):
    quote = tweet(5, "Follow-up of the lipoma with its stain #BSTpath", "3_5", at="2022-06-01")
    quote["referenced_tweets"] = [{"type": "quoted", "id": "1"}]
    found = metas(run(write_feed(tmp_path, [*CHAIN, quote], IMAGES), "split.by=hash").out)
    assert found["5_3_5"]["group"] == found["1_3_1"]["group"] != found["4_3_4"]["group"]


def test_a_pair_names_all_posts_above_it_in_all_their_versions(tmp_path):
    edited = tweet(6, "A fine lipoma, edited #BSTpath", "3_6", edit_history_tweet_ids=["5", "6"])
    posts = [edited, answer(7, 6, "Thanks"), answer(8, 7, "A lipoma with its stain #BSTpath", "3_8")]
    found = metas(run(write_feed(tmp_path, posts, IMAGES), "split.by=hash").out)
    assert found["8_3_8"]["depends_on"] == ["5", "6", "7", "8"]


def test_a_deletion_far_above_in_an_earlier_version_takes_the_answer_along(tmp_path):
    edited = tweet(6, "What is your diagnosis? #BSTpath", "3_6", edit_history_tweet_ids=["5", "6"])
    described = answer(7, 6, "A lipoma with mature fat")
    below = answer(8, 7, "Its stain: a lipoma #BSTpath", "3_8")
    out = run(write_feed(tmp_path, [edited, described, below, CHAIN[3]], IMAGES), "split.by=hash").out
    assert set(metas(out)) == {"7_3_6", "8_3_8", "4_3_4"}
    withdraw(out, frozenset({"5"}))
    assert set(metas(out)) == {"4_3_4"}


def test_a_long_chain_of_answers_falls_with_its_first_post_in_little_time(tmp_path):
    posts = [CHAIN[0], *(answer(n, n - 1, "A lipoma") for n in range(2, 3000))]
    overrides = write_feed(tmp_path, [*posts, tweet(5000, "A lipoma here #BSTpath", "3_4")], IMAGES)
    (tmp_path / "gone.txt").write_text("1\n" + "".join(f"{n}\n" for n in range(10**6, 10**6 + 5000)))
    result = run(overrides, f"source.tombstones={tmp_path / 'gone.txt'}")
    assert sum(row.reason == "deleted" for row in result.dropped) == 2999


def test_quotes_are_read_of_every_form_of_a_tweet(tmp_path):
    v2 = tweet(1, "x") | {"referenced_tweets": [{"type": "quoted", "id": "9"}]}
    v1 = {"id_str": "2", "full_text": "x", "quoted_status_id_str": "9"}
    overrides = write_feed(tmp_path, [v2], {})
    (tmp_path / "v1.jsonl").write_text(__import__("json").dumps(v1) + "\n")
    for file in ("posts.jsonl", "v1.jsonl"):
        assert [post.quotes for post in read_posts("twitter", tmp_path / file)] == ["9"]
    assert overrides
