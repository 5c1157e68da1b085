import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pathclip.curate.curate import curate
from pathclip.curate.dedup import DedupSettings
from pathclip.curate.funnel import audit, read_dropped
from pathclip.curate.images import Picture
from pathclip.curate.pairs import make_pairs
from pathclip.curate.select import Candidate
from pathclip.errors import ConfigError, DataError
from pathclip.launch import compose
from pathclip.shards.reader import read_samples
from pathclip.shards.writer import Sample
from pathclip.types import Dropped, Media

from .feed import chart, jpeg, reply, tissue, tweet, write_feed


def run(overrides: list[str], *more: str):
    return curate(compose("curate", [*overrides, *more]))


def samples(out: Path) -> list[Sample]:
    return [sample for name in ("train", "val", "test") for sample in read_samples(out / name)]


def contents(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def truth_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "feed" / "truth.jsonl").read_text("utf-8").splitlines()]


def feed_tweets(out: Path) -> Iterator[dict[str, Any]]:
    for line in (out / "feed" / "posts.jsonl").read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield from json.loads(line)["data"]


def reasons(out: Path) -> dict[str, str]:
    return {row.id: row.reason for row in read_dropped(out / "dropped.parquet")}


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
        "8_3_missing": "image_missing",
        "9_3_9": "duplicate_pair",
        "10": "image_missing",
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
    assert content["pairs"]["kept"] == sum(content["splits"].values()) == 4


def test_the_report_is_one_file_that_loads_nothing(result):
    page = (result.out / "report.html").read_text("utf-8")
    assert "near_duplicate" in page and "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert 'src="data:' in page and "<script" not in page


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    images = {f"3_{n}": jpeg(tissue(n)) for n in range(100, 170)}
    posts = [tweet(n, f"Adenocarcinoma of case {n} #GIpath", f"3_{n}") for n in range(100, 170)]
    overrides = write_feed(tmp_path, posts, images)
    digests = []
    for workers in (1, 3):
        out = run(overrides, f"workers={workers}", f"out={tmp_path / str(workers)}").out
        files = sorted(file for file in out.rglob("*") if file.is_file())
        digests.append([(f.relative_to(out), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files])
    assert digests[0] == digests[1]


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


def test_posts_that_repeat_one_dropped_picture_are_one_case():
    """The second picture is near the first, the third near the second alone: still one case."""
    hashes = {"A1": 0b0, "B1": 0b11111, "B2": 0xFFFF << 40, "C1": 0b111111111}
    candidates = [Candidate(f"{key[0]}_{key}", Media(key), key, key[0], key[0], "twitter") for key in hashes]
    pictures = [Picture(None, sha256=key, hashes=(value,) * 8) for key, value in hashes.items()]
    kept, dropped = make_pairs(candidates, pictures, DedupSettings())
    assert [row.id for row in dropped] == ["B_B1"]
    assert {one.pair.group for one in kept} == {"A"}


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

    monkeypatch.setattr("pathclip.curate.curate.check_leaks", changes_a_picture)
    with pytest.raises(DataError, match="changed since it was looked at"):
        run(overrides, "text.hashtags=words")
    assert contents(out) == before


def test_a_run_that_is_killed_while_publishing_leaves_no_report_of_other_shards(tmp_path, monkeypatch):
    overrides = write_feed(tmp_path, POSTS, IMAGES)
    out = run(overrides).out

    def killed(staged):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathclip.curate.curate.replace_shards", killed)
        with pytest.raises(KeyboardInterrupt):
            run(overrides, "text.hashtags=words")
    assert {path.name for path in out.iterdir()} == {"train", "val", "test"}
    (out / ".unfinished").mkdir()  # as a kill would leave it
    run(overrides, "text.hashtags=words")
    assert not (out / ".unfinished").exists() and (out / "funnel.json").is_file()


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
        ("workers=0", ConfigError, "workers: expected .* of at least 1"),
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
        DataError, match=r"1 of 1 rows fell by image_missing, as '1_3_1': no such file below "
    ):
        run(overrides)
    assert (tmp_path / "out" / "funnel.json").is_file()


def test_absolute_paths_of_a_table_are_followed_below_the_folder_of_images_only(tmp_path):
    (tmp_path / "images").mkdir()
    for place in ("images/in.jpg", "out.jpg"):
        (tmp_path / place).write_bytes(jpeg(tissue(1 if place == "out.jpg" else 2)))
    rows = "".join(f"{tmp_path / place},a fine lipoma\n" for place in ("images/in.jpg", "out.jpg"))
    (tmp_path / "table.csv").write_text(f"image,text\n{rows}")
    table = [f"source.posts={tmp_path / 'table.csv'}", f"source.images={tmp_path / 'images'}"]
    result = run(["source=table", *table, f"out={tmp_path / 'shards'}", "workers=1"])
    assert len(samples(result.out)) == 1
    assert list(reasons(result.out).values()) == ["image_missing"]


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


def test_rules_on_words_fail_on_the_hard_posts_of_the_feed_and_on_no_others(synthetic):
    """A list of phrases that finds these was written with the feed at hand, and its score means nothing."""
    truth = {row["id"]: row["reason"] for row in truth_rows(synthetic.out) if row["kind"] == "post"}
    given = reasons(synthetic.out)
    texts = {tweet["id"]: tweet["text"] for tweet in feed_tweets(synthetic.out)}
    by_words = ("question", "advertisement")
    missed = {name for name, reason in truth.items() if reason in by_words and given.get(name) != reason}
    wrong = {name for name, reason in given.items() if reason in by_words and truth[name] != reason}
    hard = ("love to hear how others call", "wait for you, details and salary")
    assert missed == {
        name for name in truth if truth[name] in by_words and any(words in texts[name] for words in hard)
    }
    assert wrong == {name for name in truth if truth[name] == "kept" and "?" in texts[name]}
    assert missed and wrong


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


# What the rules can reach where it is less than 0.95, as (precision, recall).
REACHABLE = {
    # One wording of six has neither a mark nor a usual phrase; and for 60 questions the feed has 15 captions
    # whose question is rhetorical, which a mark cannot tell from one that asks.
    "question": (0.7, 0.75),
    # Likewise one wording of six: of 45 rows 7 or 8 on average, 11 with this seed.
    "advertisement": (0.95, 0.7),
    # Drawn cats and slides of text pass for tissue now and then: over the seeds 0 to 11 recall was 0.92 on
    # average, from 0.88 to 0.99.
    "not_pathology": (0.95, 0.85),
}


@pytest.mark.slow
def test_every_rule_finds_its_rows_of_a_synthetic_feed(tmp_path):
    result = run(["source=synthetic", "source.synthetic.posts=1500", "seed=5", f"out={tmp_path}"])
    for score in result.scores:
        precision, recall = REACHABLE.get(score.reason, (0.95, 0.95))
        assert score.precision >= precision and score.recall >= recall, score


def test_synthetic_pairs_carry_labels_for_evaluation(synthetic):
    labels = {sample.meta["label"] for sample in samples(synthetic.out)}
    assert len(labels - {None}) >= 8


def test_the_audit_blames_the_rule_that_took_another_rules_row(tmp_path):
    truth = [
        {"kind": "post", "id": "1", "post": "1", "reason": "question"},
        {"kind": "media", "id": "3_1", "post": "1", "reason": "question"},
        {"kind": "post", "id": "2", "post": "2", "reason": "kept"},
        {"kind": "media", "id": "3_2", "post": "2", "reason": "not_pathology"},
        {"kind": "line", "id": "4", "post": None, "reason": "malformed"},
    ]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    dropped = [
        Dropped("1", "advertisement"),
        Dropped("2_3_2", "not_pathology"),
        Dropped("posts.jsonl:4", "malformed"),
    ]
    scores = {score.reason: score for score in audit(dropped, tmp_path / "truth.jsonl")}
    assert (scores["question"].recall, scores["advertisement"].precision) == (0, 0)
    assert (scores["not_pathology"].precision, scores["not_pathology"].recall) == (1, 1)
    assert scores["malformed"].recall == 1


def test_the_audit_counts_an_answer_as_a_pair_of_its_own(tmp_path):
    """Post 1 asks and falls; answer 2 is kept with its picture."""
    truth = [
        {"kind": "post", "id": "1", "post": "1", "reason": "question"},
        {"kind": "media", "id": "3_1", "post": "1", "reason": "question"},
        {"kind": "post", "id": "2", "post": "2", "reason": "kept"},
    ]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))

    def kept(*dropped):
        return audit(dropped, tmp_path / "truth.jsonl")[-1]

    assert (kept(asked := Dropped("1", "question")).n, kept(asked).found, kept(asked).recall) == (1, 1, 1)
    assert kept(asked, Dropped("2_3_1", "not_pathology")).recall == 0
    assert kept(asked, Dropped("2", "advertisement")).recall == 0
    assert kept().precision == 0.5
