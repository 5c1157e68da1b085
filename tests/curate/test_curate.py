import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.shards.reader import read_samples

from .feed import chart, contents, jpeg, reasons, reply, run, samples, tissue, tweet, write_feed


def truth_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "feed" / "truth.jsonl").read_text("utf-8").splitlines()]


def feed_tweets(out: Path) -> Iterator[dict[str, Any]]:
    for line in (out / "feed" / "posts.jsonl").read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield from json.loads(line)["data"]


POSTS = [
    tweet(1, "Invasive ductal carcinoma, grade 3 #BreastPath", "3_1", "3_2", at="2021-01-01"),
    reply(2, 1, "Agree, and there is lymphovascular invasion by the carcinoma", likes=9),
    reply(3, 1, "Carcinoma for sure", likes=2),
    reply(4, 1, "Great case, thanks for sharing", likes=99),
    tweet(5, "Granular cell tumour of the tongue #OralPath", "3_5", at="2021-02-01"),
    tweet(6, "The very same tumour, posted again by me #OralPath", "3_6", at="2021-03-01"),
    tweet(7, "Our turnaround times this year #pathology", "3_7"),
    tweet(8, "Tubular adenoma with low grade dysplasia #GIpath", "3_missing"),
    tweet(9, "Granular cell tumour of the tongue #OralPath", "3_9", at="2021-04-01"),
    tweet(10, "No picture here at all today #GIpath"),
    '{"data": [{"id": "11", "te',
    tweet(12, "Withdrawn by its author, a lipoma #BSTpath", "3_12"),
    reply(13, 12, "Indeed a fine lipoma"),
]
IMAGES = {
    "3_1": jpeg(tissue(1)),
    "3_2": jpeg(tissue(2)),
    "3_5": jpeg(tissue(5)),
    "3_6": jpeg(tissue(5).rotate(90), quality=70),
    "3_7": jpeg(chart()),
    "3_9": jpeg(tissue(5)),
    "3_12": jpeg(tissue(12)),
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feed")
    overrides = write_feed(folder, POSTS, IMAGES)
    (folder / "gone.txt").write_text("# deleted\n12\n")
    return run(overrides, f"source.tombstones={folder / 'gone.txt'}")


def test_each_row_is_kept_or_falls_for_its_own_reason(result):
    assert {sample.key for sample in samples(result.out)} == {"1_3_1", "1_3_2", "2_3_1", "5_3_5"}
    assert reasons(result.out) == {
        "3": "reply_not_most_liked",
        "4": "reply_without_diagnosis",
        "6_3_6": "near_duplicate",
        "7_3_7": "not_pathology",
        "8_3_missing": "image_unreachable",
        "9_3_9": "duplicate_pair",
        "10": "no_image",
        "posts.jsonl:11": "malformed",
        "12": "deleted",
        "13": "deleted",
    }


def test_a_reply_describes_the_first_picture_of_the_post_it_answers_in_its_group(result):
    by_key = {sample.key: sample for sample in samples(result.out)}
    answer, post = by_key["2_3_1"], by_key["1_3_1"]
    assert answer.image == post.image == IMAGES["3_1"]
    assert answer.text.startswith("Agree, and there")
    assert answer.meta["group"] == post.meta["group"] == by_key["1_3_2"].meta["group"]


def test_a_sample_carries_what_later_stages_need(result):
    meta = next(sample for sample in samples(result.out) if sample.key == "5_3_5").meta
    assert meta["image_sha256"] == hashlib.sha256(IMAGES["3_5"]).hexdigest()
    assert (meta["source"], meta["post"], meta["created_at"]) == ("twitter", "5", "2021-02-01T00:00:00+00:00")
    assert (meta["width"], meta["height"], len(meta["phash"])) == (160, 160, 16)


def test_the_funnel_adds_up(result):
    content = json.loads((result.out / "funnel.json").read_text())
    for part in ("posts", "pairs"):
        rows = content[part]
        assert rows["read"] == rows["kept"] + sum(step["dropped"] for step in rows["steps"])
    assert content["posts"]["read"] == len(POSTS)
    assert content["pairs"]["kept"] == sum(part["pairs"] for part in content["splits"].values()) == 4


def test_the_report_is_one_file_that_loads_nothing(result):
    page = (result.out / "report.html").read_text("utf-8")
    assert "near_duplicate" in page and "data:image/jpeg;base64," in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:' in page and "<script" not in page


@pytest.mark.parametrize("repeat", ["near_duplicate", "duplicate_pair"])
@pytest.mark.parametrize("near_duplicates", ["drop", "group"])
def test_a_post_whose_picture_was_posted_before_stays_in_the_group_of_the_first(
    tmp_path, repeat, near_duplicates
):
    """A1 in January; in July B1, which is A1 again, and B2, a new field of the same case."""
    turned = jpeg(tissue(5).rotate(90), quality=70)
    again = ("The same lipoma", turned) if repeat == "near_duplicate" else ("A fine lipoma", jpeg(tissue(5)))
    posts = [
        tweet(1, "A fine lipoma #BSTpath", "A1", at="2021-01-01"),
        *(tweet(n, f"Melanoma of case {n} #dermpath", f"C{n}", at="2021-03-01") for n in range(2, 9)),
        tweet(9, f"{again[0]} #BSTpath", "B1", "B2", at="2021-07-01"),
    ]
    images = {f"C{n}": jpeg(tissue(n + 20)) for n in range(2, 9)}
    images |= {"A1": jpeg(tissue(5)), "B1": again[1], "B2": jpeg(tissue(6))}
    overrides = write_feed(tmp_path, posts, images)
    result = run(overrides, "split.val=0", "split.test=0.1", f"dedup.near_duplicates={near_duplicates}")
    split_of = {
        sample.key: (name, sample.meta["group"])
        for name in result.pairs
        for sample in read_samples(result.shards(name))
    }
    assert split_of["9_B2"] == split_of["1_A1"]
    if near_duplicates == "drop" or repeat == "duplicate_pair":
        assert reasons(result.out) == {"9_B1": repeat}


def test_pictures_that_a_thread_goes_on_with_stay_in_the_group_of_its_first_post(tmp_path):
    stain = reply(2, 1, "Here is the stain of this lipoma #BSTpath", likes=3)
    stain["attachments"] = {"media_keys": ["3_2"]}
    posts = [tweet(1, "A fine lipoma #BSTpath", "3_1"), stain]
    images = {"3_1": jpeg(tissue(1)), "3_2": jpeg(tissue(2))}
    result = run(write_feed(tmp_path, posts, images), "split.by=hash")
    assert {sample.key: sample.meta["group"] for sample in samples(result.out)} == {
        "1_3_1": "twitter:1",
        "2_3_2": "twitter:1",
    }


def test_near_duplicates_can_be_kept_in_one_group(tmp_path):
    overrides = write_feed(tmp_path, [POSTS[4], POSTS[5]], IMAGES)
    kept = samples(run(overrides, "dedup.near_duplicates=group").out)
    assert {sample.key for sample in kept} == {"5_3_5", "6_3_6"}
    assert len({sample.meta["group"] for sample in kept}) == 1


def test_a_table_with_cases_labels_and_splits_becomes_shards(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(tissue(number)))
    rows = [f"{n}.jpg,benign lung,P{n // 2},lung_n,{'train' if n < 4 else 'test'}" for n in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(["file,caption,case,class,set", *rows]) + "\n")
    result = run(
        ["source=table", f"source.posts={tmp_path / 't.csv'}", f"out={tmp_path / 'out'}", "workers=1"],
        "source.columns={image: file, text: caption, group: case, label: class, split: set}",
        "source.name=mine",
        'source.captions=["{text}","H&E of {text}"]',
    )
    assert result.pairs == {"train": 4, "val": 0, "test": 2}
    first = next(iter(read_samples(result.shards("test"))))
    assert (first.meta["source"], first.meta["label"]) == ("mine", "lung_n")
    assert first.meta["group"] == "mine:case:P2"


def test_several_captions_of_one_image_are_as_many_pairs_in_one_group(tmp_path):
    (tmp_path / "0.jpg").write_bytes(jpeg(tissue(0)))
    (tmp_path / "t.csv").write_text("n,image,text\n7,0.jpg,a lipoma\n8,0.jpg,mature fat\n7,0.jpg,a lipoma\n")
    result = run(
        ["source=table", f"source.posts={tmp_path / 't.csv'}", f"out={tmp_path / 'out'}", "workers=1"],
        "source.columns.id=n",
        "dedup.near_duplicates=off",
    )
    kept = samples(result.out)
    assert sorted(sample.text for sample in kept) == ["a lipoma", "mature fat"]
    assert len({sample.meta["group"] for sample in kept}) == 1
    assert [row.reason for row in result.dropped] == ["duplicate_pair"]


def test_a_case_in_two_prescribed_splits_fails_the_run_and_writes_no_shards(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(tissue(number)))
    (tmp_path / "t.csv").write_text("image,text,case,set\n0.jpg,a,P1,train\n1.jpg,b,P1,test\n")
    with pytest.raises(DataError, match="the same group"):
        run(
            ["source=table", f"source.posts={tmp_path / 't.csv'}", f"out={tmp_path / 'out'}", "workers=1"],
            "source.columns.group=case",
            "source.columns.split=set",
        )
    assert not (tmp_path / "out" / "train").exists()


def test_a_run_that_fails_while_writing_leaves_the_earlier_shards_and_reports(tmp_path, monkeypatch):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    out = run(overrides).out
    before = contents(out)

    def changes_a_picture(*ignored):
        newest = json.loads((tmp_path / "posts.jsonl").read_text().splitlines()[11])["data"][0]
        picture = tmp_path / "images" / f"{newest['attachments']['media_keys'][0]}.jpg"
        picture.write_bytes(jpeg(tissue(99)))

    monkeypatch.setattr("pathclip.curate.divide.check_leaks", changes_a_picture)
    with pytest.raises(DataError, match="changed since it was looked at"):
        run(overrides, "text.hashtags=words")
    assert contents(out) == before


def test_the_funnel_and_the_closing_line_say_what_the_pairs_are_split_by(tmp_path, capsys):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    for by, more in (("time", ()), ("hash", ("split.by=hash",))):
        out = run(overrides, *more).out
        assert json.loads((out / "funnel.json").read_text())["split_by"] == by
        assert f"pairs, split by {by}: train" in capsys.readouterr().out


def test_the_limit_bounds_the_posts_that_are_read(tmp_path):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    assert run(overrides, "limit=3").funnel["posts"]["read"] == 3


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("source.posts=absent.jsonl", DataError, "source.posts=absent.jsonl: no such file"),
        ("source.images=absent", DataError, "source.images=absent: no such folder"),
        ("source.tombstones=absent.txt", DataError, "no such file"),
        ("seed=abc", ConfigError, "seed: expected int"),
        ("workers=0", ConfigError, r"workers: expected .* at least 1.*got 0"),
        ("workers=many", ConfigError, "workers: expected int"),
        ("download=maybe", ConfigError, "download: expected bool"),
        ("fetch.concurrency=0", ConfigError, "fetch.concurrency: expected .* at least 1"),
        ("dedup.max_distance=12", ConfigError, "dedup: max_distance is 12"),
        ("split.by=tim", ConfigError, "split.by"),
        ("split.val=1.5", ConfigError, "split"),
        ("images.min_side=large", ConfigError, "images.min_side"),
        ("rules.skip=[retweets]", ConfigError, "rules.skip"),
    ],
)
def test_a_wrong_value_is_told_by_its_key(tmp_path, override, error, message):
    overrides = write_feed(tmp_path, POSTS[:1], IMAGES)
    with pytest.raises(error, match=message):
        run(overrides, override)


def test_a_run_that_leaves_no_pair_says_what_took_them(tmp_path):
    overrides = write_feed(tmp_path, [tweet(1, "A fine lipoma #BSTpath", "3_1")], {})
    with pytest.raises(
        DataError, match=r"1 of 1 rows fell by image_unreachable, as '1_3_1': no 3_1.jpg in images"
    ):
        run(overrides)
    assert json.loads((tmp_path / "out" / "nothing_left" / "funnel.json").read_text())["pairs"]["kept"] == 0


def test_a_run_that_leaves_no_pair_leaves_the_earlier_shards_and_reports(tmp_path):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    out = run(overrides).out
    before = contents(out)
    with pytest.raises(DataError, match="not one pair is left"):
        run(overrides, "images.min_side=1000")
    assert before.items() <= contents(out).items()
    assert {path.name for path in out.iterdir()} - {name.split("/")[0] for name in before} == {"nothing_left"}


def test_absolute_paths_of_a_table_are_followed_below_the_folder_of_images_only(tmp_path):
    (tmp_path / "images").mkdir()
    for place in ("images/in.jpg", "out.jpg"):
        (tmp_path / place).write_bytes(jpeg(tissue(1 if place == "out.jpg" else 2)))
    rows = "".join(f"{tmp_path / place},a fine lipoma\n" for place in ("images/in.jpg", "out.jpg"))
    (tmp_path / "table.csv").write_text(f"image,text\n{rows}")
    table = [f"source.posts={tmp_path / 'table.csv'}", f"source.images={tmp_path / 'images'}"]
    result = run(["source=table", *table, f"out={tmp_path / 'shards'}", "workers=1"])
    assert len(samples(result.out)) == 1
    assert list(reasons(result.out).values()) == ["image_unreachable"]


def test_a_dump_that_nobody_named_is_told_with_an_example():
    with pytest.raises(ConfigError, match=r"pathclip curate source=twitter source\.posts=dump\.jsonl"):
        run([])


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    return run(["source=synthetic", "source.synthetic.posts=160", "seed=3", f"out={out}"])


def test_most_rows_of_a_small_synthetic_feed_fall_for_their_own_reason(synthetic):
    kept = synthetic.scores[-1]
    assert kept.reason == "kept" and kept.precision >= 0.95 and kept.recall >= 0.95
    assert {score.reason for score in synthetic.scores} >= {"retweet", "near_duplicate"}


def test_of_a_small_synthetic_feed_no_rule_misses_or_takes_more_than_a_row_or_two(synthetic):
    for score in synthetic.scores[:-1]:
        hits = round(score.recall * score.n)
        assert score.n - hits <= 2 and score.found - hits <= 2, score


def test_the_answer_to_a_question_that_falls_is_a_pair_with_its_picture(synthetic):
    truth = {row["id"]: row["reason"] for row in truth_rows(synthetic.out) if row["kind"] == "post"}
    asked = {
        tweet["id"]: tweet["conversation_id"]
        for tweet in feed_tweets(synthetic.out)
        if truth[tweet["id"]] == "kept" and truth[tweet["conversation_id"]] == "question"
    }
    by_post = {sample.meta["post"]: sample for sample in samples(synthetic.out)}
    assert asked
    for answer, question in asked.items():
        sample = by_post[answer]
        picture = synthetic.out / "feed" / "images" / f"{sample.key.partition('_')[2]}.jpg"
        assert sample.image == picture.read_bytes()
        assert sample.meta["group"] == f"twitter:{question}"
        assert reasons(synthetic.out)[question] == "question"


@pytest.mark.slow
def test_every_rule_finds_its_rows_of_a_synthetic_feed(tmp_path):
    result = run(["source=synthetic", "source.synthetic.posts=1500", "seed=5", f"out={tmp_path}"])
    for score in result.scores:
        assert score.precision >= 0.98 and score.recall >= 0.98, score


def test_synthetic_pairs_carry_labels_for_evaluation(synthetic):
    labels = {sample.meta["label"] for sample in samples(synthetic.out)}
    assert len(labels - {None}) >= 8
