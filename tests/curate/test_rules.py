import time
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pathclip.config import build
from pathclip.curate.rule_settings import POST_RULES
from pathclip.curate.rules import REASONS, RULES, RuleSettings, Seen, first_reason
from pathclip.curate.text import TextCleaner
from pathclip.errors import ConfigError, DataError
from pathclip.launch import compose
from pathclip.types import Media, Post

PICTURE = (Media("3_1"),)


@pytest.fixture(scope="module")
def openpath() -> RuleSettings:
    from omegaconf import OmegaConf

    return build(OmegaConf.to_container(compose("curate").rules), "rules")


def seen(text: str, answered: Post | None = None, withdrawn: str | None = None, **fields) -> Seen:
    fields.setdefault("media", () if answered else PICTURE)
    fields.setdefault("in_reply_to", answered.id if answered else None)
    fields.setdefault("hashtags", () if answered else ("GIpath",))
    return Seen(Post("1", "twitter", text, **fields), TextCleaner(), answered, withdrawn)


def post(**fields) -> Post:
    return Post("9", "twitter", "What is it?", media=PICTURE, hashtags=("dermpath",), **fields)


GOOD = "Signet ring cell carcinoma of the stomach, H&E"


def test_a_description_with_a_pathology_hashtag_stays(openpath):
    assert first_reason(seen(GOOD), openpath) is None


@pytest.mark.parametrize(
    ("reason", "case"),
    [
        ("deleted", seen(GOOD, withdrawn="1")),
        ("deleted", seen("Melanoma", post(), withdrawn="9")),
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


def test_published_drops_at_any_question_mark_and_at_nothing_else():
    published = RuleSettings(question="published", question_marks="?？؟")

    def reason(text, settings=published):
        found = first_reason(seen(text), settings)
        return found and found[0]

    assert reason("Who doesn't love a good granuloma? Classic sarcoid") == "question"
    assert reason("Reactive (?) gland") == "question"
    assert reason("شبكية؟ ورم") == "question"
    assert reason("Any thoughts on this spindle cell lesion") is None
    assert reason("Melanoma, see https://x.org/?q=1") is None
    careful = RuleSettings(question="careful", question_marks="?？؟")
    assert reason("Who doesn't love a good granuloma? Classic sarcoid", careful) is None
    assert reason("Any thoughts on this spindle cell lesion", careful) == "question"
    assert reason("What is it?", RuleSettings()) is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"question": None}, "Granuloma or not?"),
        ({"question": "published"}, "Any thoughts on this lesion"),
        ({"question_marks": ""}, "A strange fold?"),
        ({"answer_words": 9}, "What is it? Large and deep nested schwannoma"),
        ({"judged_chars": 20}, "Melanoma " * 20 + "any thoughts"),
        ({"choice_words": 2}, "Melanoma or else nevus"),
        ({"question_score": None}, "Testicular mass, any additional stains you recommend"),
        ({"min_words": 1}, "Lipoma H"),
        ({"languages": []}, "Hautbiopsie mit einem dichten Infiltrat und Nekrosen"),
        ({"advertisement_score": None}, "Register now for our course on polyps"),
        ({"advertisement_score": 99.0}, "Register now for our course on polyps"),
        ({"hashtags": ["openpath", "wider"]}, "Lipoma of the arm #pathtwitter"),
        ({"skip": ["question"]}, "Granuloma or not?"),
        ({"until": None}, "Lipoma of the arm in 2030"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_every_setting_has_an_effect(openpath, change, text):
    from dataclasses import replace

    narrow = replace(openpath, hashtags=["openpath"], until="2029-12-31")
    fields = {"created_at": datetime(2030, 1, 1, tzinfo=UTC)} if "until" in change else {}
    if "hashtags" in change:
        fields["hashtags"] = ("pathtwitter",)
    before = first_reason(seen(text, **fields), narrow)
    after = first_reason(seen(text, **fields), replace(narrow, **change))
    assert before is not None
    assert after is None


def test_a_reply_may_be_as_short_as_the_config_says(openpath):
    from dataclasses import replace

    assert first_reason(seen("Melanoma", post()), openpath) is None
    assert first_reason(seen("Melanoma", post()), replace(openpath, min_reply_words=2))[0] == "too_short"


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=400)


@given(ANY_TEXT, st.none() | ANY_TEXT, st.booleans())
@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_judged(openpath, text, language, reply):
    case = seen(text, post() if reply else None, language=language)
    found = first_reason(case, openpath)
    assert found is None or (found[0] in REASONS and isinstance(found[1], str))


TELLING = "what is it this thoughts please register now your or you any melanoma nevus the dx course #a @a"
WORDS = st.sampled_from([*TELLING.split(), *'?.,:()"#-'])


@given(st.lists(WORDS, max_size=60))
@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_telling_words_is_judged(openpath, words):
    first_reason(seen(" ".join(words)), openpath)


@pytest.mark.parametrize(
    "text",
    [
        "what is it? " * 3000,
        "any thoughts " * 3000,
        "?" * 40_000,
        "(" * 20_000 + "?" * 20_000,
        '"?' * 20_000,
        ": " * 20_000,
        "register now " * 3000,
        "your a a a a " * 3000,
        "melanoma or " * 3000,
        "solitary fibrous " * 3000,
        "a ? b " * 7000,
        "#a " * 13_000,
        "." * 40_000 + "aé",
        "-" * 40_000 + "é",
        "," * 40_000,
        "a," * 20_000,
        "- a " * 10_000,
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_hostile_texts_are_judged_in_little_time(openpath, text):
    first_reason(seen("warm up?"), openpath)
    start = time.process_time()
    for case in (seen(text), seen(text, post())):
        for rule in RULES:
            rule.check(case, openpath)
    assert time.process_time() - start < 2.0


def test_the_settings_know_the_same_rules_in_the_same_order():
    assert tuple(rule.reason for rule in RULES) == POST_RULES
    assert "mixed_figure" in REASONS


def test_wrong_settings_are_told():
    with pytest.raises(ConfigError, match=r"rules\.skip: 'retweets'"):
        RuleSettings(skip=["retweets"])
    with pytest.raises(ConfigError, match="a day as in"):
        RuleSettings(since="last week")
    with pytest.raises(ConfigError, match="Did you mean openpath"):
        _ = RuleSettings(hashtags=["open_path"]).tags
    with pytest.raises(DataError, match="no such file"):
        _ = RuleSettings(disease_terms="absent.yaml").diseases
