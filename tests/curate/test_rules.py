from datetime import UTC, datetime

import pytest

from pathclip.config import build
from pathclip.curate.rules import REASONS, RULES, RuleSettings, Seen, first_reason, most_liked
from pathclip.curate.text import TextCleaner
from pathclip.errors import ConfigError, DataError
from pathclip.launch import compose
from pathclip.types import Media, Post

PICTURE = (Media("3_1"),)


@pytest.fixture(scope="module")
def openpath() -> RuleSettings:
    from omegaconf import OmegaConf

    return build(OmegaConf.to_container(compose("curate").rules), "rules")


def seen(text: str, answered: Post | None = None, deleted: frozenset[str] = frozenset(), **fields) -> Seen:
    fields.setdefault("media", () if answered else PICTURE)
    fields.setdefault("in_reply_to", answered.id if answered else None)
    fields.setdefault("hashtags", () if answered else ("GIpath",))
    return Seen(Post("1", "twitter", text, **fields), TextCleaner(), answered, deleted)


def post(**fields) -> Post:
    return Post("9", "twitter", "What is it?", media=PICTURE, hashtags=("dermpath",), **fields)


GOOD = "Signet ring cell carcinoma of the stomach, H&E"


def test_a_description_with_a_pathology_hashtag_stays(openpath):
    assert first_reason(seen(GOOD), openpath) is None


@pytest.mark.parametrize(
    ("reason", "case"),
    [
        ("deleted", seen(GOOD, deleted=frozenset({"1"}))),
        ("deleted", seen("Melanoma", post(), deleted=frozenset({"9"}))),
        ("retweet", seen(GOOD, flags=frozenset({"retweet"}))),
        ("retweet", seen("RT @somebody: " + GOOD)),
        ("sensitive", seen(GOOD, flags=frozenset({"sensitive"}))),
        ("sensitive", seen("Melanoma", post(flags=frozenset({"sensitive"})))),
        ("withheld", seen(GOOD, flags=frozenset({"withheld"}))),
        ("no_hashtag", seen(GOOD, hashtags=())),
        ("no_hashtag", seen(GOOD, hashtags=("holidays",))),
        ("question", seen("Granuloma or not?")),
        ("question", seen("Any thoughts on this spindle cell lesion")),
        ("too_short", seen("Wow 🔬 #GIpath https://t.co/x")),
        ("language", seen("Plattenepithelkarzinom der Lunge mit Verhornung")),
        ("reply_without_diagnosis", seen("Great case, thank you for sharing", post())),
        ("advertisement", seen("Register now for our course on gastric biopsies")),
    ],
)
def test_each_rule_finds_its_case(openpath, reason, case):
    assert first_reason(case, openpath)[0] == reason


@pytest.mark.parametrize(
    "case",
    [
        seen("See https://x.org/?q=1 for this signet ring cell carcinoma"),
        seen("Colon Adenocarcinoma (H&E)"),
        seen("Granular cell tumor, colon (H&E)"),
        seen("Melanoma", post()),
        seen("Looks like nodular fasciitis to me", post()),
        seen(GOOD, hashtags=("gipath",)),
        seen("Squamous cell carcinoma on salesman's lip"),  # holds 'on sale', but not as words
        seen("Small vessels, an undiscounted finding in melanoma"),
    ],
)
def test_rules_leave_alone_what_only_looks_like_their_case(openpath, case):
    assert first_reason(case, openpath) is None


def test_the_first_rule_in_the_published_order_names_the_reason(openpath):
    both = seen("RT @a: is it a granuloma?", flags=frozenset({"sensitive"}))
    assert first_reason(both, openpath)[0] == "retweet"
    order = [REASONS.index(rule.reason) for rule in RULES]
    assert order == sorted(order)


def test_posts_outside_the_window_fall_and_posts_without_date_stay():
    settings = RuleSettings(since="2021-01-01", until="2021-12-31")

    def reason(moment):
        found = first_reason(seen(GOOD, created_at=moment), settings)
        return found and found[0]

    assert reason(datetime(2020, 12, 31, 23, 59, tzinfo=UTC)) == "outside_dates"
    assert reason(datetime(2021, 12, 31, 23, 59, tzinfo=UTC)) is None
    assert reason(datetime(2022, 1, 1, tzinfo=UTC)) == "outside_dates"
    assert reason(None) is None


def test_a_rule_can_be_skipped(openpath):
    from dataclasses import replace

    assert first_reason(seen("Granuloma or not?"), replace(openpath, skip=["question", "too_short"])) is None


@pytest.mark.parametrize("word", ["stroma", "diagnosis", "mitosis", "aroma", "doses"])
def test_words_that_only_end_like_diseases_are_none(openpath, word):
    assert openpath.diseases.find(f"nice {word} there") is None


@pytest.mark.parametrize("term", ["Adenocarcinoma", "sarcoidosis", "BCC", "Crohn’s", "warts", "dysplasia"])
def test_diseases_are_found_by_ending_and_by_name(openpath, term):
    assert openpath.diseases.find(f"I think {term}!") is not None


def test_of_a_thread_the_most_liked_reply_stays_and_of_equals_the_earliest():
    def reply(number, likes, day):
        moment = datetime(2021, 1, day, tzinfo=UTC)
        return Post(number, "twitter", "", metrics={"like_count": likes}, created_at=moment)

    thread = [reply("a", 3, 1), reply("b", 5, 3), reply("c", 5, 2)]
    assert most_liked({"9": thread, "8": [reply("d", 0, 1)]}) == {"c", "d"}


def test_wrong_settings_are_told():
    with pytest.raises(ConfigError, match=r"rules\.skip: 'retweets'"):
        RuleSettings(skip=["retweets"])
    with pytest.raises(ConfigError, match="a day as in"):
        RuleSettings(since="last week")
    with pytest.raises(ConfigError, match="Did you mean openpath"):
        _ = RuleSettings(hashtags=["open_path"]).tags
    with pytest.raises(DataError, match="no such file"):
        _ = RuleSettings(disease_terms="absent.yaml").diseases
