from __future__ import annotations

import html
import re

import numpy as np
import pytest

from pathclip.sources import synthetic_captions as captions
from pathclip.sources.synthetic_tiles import CLASSES
from pathclip.sources.synthetic_wordings import WORDINGS

DISEASED = [name for name, wording in WORDINGS.items() if wording.diagnoses]


def many(function, *arguments, n=60):
    return [function(*arguments, np.random.default_rng(seed)) for seed in range(n)]


def words(text: str) -> list[str]:
    bare = re.sub(r"[#@]\w+|https?://\S+", " ", html.unescape(text))
    return re.findall(r"\w+", bare)


def test_every_class_has_its_wording():
    assert WORDINGS.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_captions_state_and_do_not_ask(name):
    for text in many(captions.caption, name):
        assert "?" not in text
        assert len(words(text)) >= 5
        assert re.search(r"#\w+path\b", text, re.IGNORECASE)


def test_captions_of_a_class_are_worded_in_many_ways():
    assert len(set(many(captions.caption, "adenocarcinoma"))) > 55


def test_texts_are_escaped_as_the_platform_does():
    texts = [text for name in CLASSES for text in many(captions.caption, name)]
    assert any("H&amp;E" in text for text in texts)
    assert not any(re.search(r"&(?!amp;|lt;|gt;)|[<>]", text) for text in texts)


def test_captions_without_hashtag_have_none_of_pathology():
    assert not any(
        re.search("#.*path", text, re.IGNORECASE)
        for text in many(captions.caption_without_hashtag, "necrosis")
    )


def test_most_questions_but_not_all_end_in_a_question_mark():
    marked = ["?" in text for text in many(captions.question, "necrosis", n=200)]
    assert 0.7 < sum(marked) / len(marked) < 0.95


@pytest.mark.parametrize("name", CLASSES)
def test_rhetorical_captions_hold_a_question_and_name_the_class(name):
    for text in many(captions.rhetorical, name):
        assert "?" in text
        assert any(synonym in text.lower() for synonym in map(str.lower, CLASSES[name]))


def test_short_texts_leave_at_most_two_words():
    assert all(len(words(text)) <= 2 for text in many(captions.too_short, "necrosis"))


@pytest.mark.parametrize("language", captions.LANGUAGES)
def test_every_language_has_captions_for_every_class(language):
    for name in CLASSES:
        text = captions.caption_abroad(name, language, np.random.default_rng(0))
        assert WORDINGS[name].abroad[language] in text
        assert "?" not in text


@pytest.mark.parametrize("name", DISEASED)
def test_answers_name_a_disease_of_the_class(name):
    for text in many(captions.answer, name, "DrBrown"):
        assert text.startswith("@DrBrown ")
        assert any(term in text.lower() for term in WORDINGS[name].diagnoses)


def test_a_class_without_disease_has_no_answer():
    with pytest.raises(ValueError, match="no disease"):
        captions.answer("benign glands", "DrBrown", np.random.default_rng(0))


def test_chatter_names_no_disease():
    terms = {term for wording in WORDINGS.values() for term in wording.diagnoses}
    assert not any(term in text.lower() for text in many(captions.chatter, "DrBrown") for term in terms)


def test_advertisements_link_to_what_they_sell():
    assert all("https://t.co/" in text for text in many(captions.advertisement))


def test_jokes_carry_a_hashtag_of_pathology_and_no_question():
    assert all("#pathology" in text and "?" not in text for text in many(captions.joke))
