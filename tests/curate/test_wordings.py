import pytest

from pathclip.curate.wordings import Wordings, clauses_of, plain, spaced, tokens_of, words_of
from pathclip.errors import DataError


def found(line: str, text: str, **classes) -> str | None:
    words = words_of(plain(text))
    return Wordings((line,), classes).find(spaced(words), words)


@pytest.mark.parametrize(
    ("line", "text", "match"),
    [
        ("dx please", "DX, Please", "dx please"),
        ("(dx|final diagnosis) please", "my final diagnosis please", "final diagnosis please"),
        ("any (good|) ideas", "any ideas", "any ideas"),
        ("opinión", "opinion", "opinion"),
        ("what's it", "What’s it", "what's it"),
        ("your ..2 thoughts", "your two cents thoughts", "your two cents thoughts"),
        ("^ guess", "guess now", "guess"),
        ("thoughts $", "any thoughts", "thoughts"),
        ("{thought} please", "ideas please", "ideas please"),
        ("save {number} %", "save 20% today", "save 20 %"),
        ("{currency} {number}", "only $30", "$ 30"),
    ],
)
def test_a_wording_matches_what_its_signs_say(line, text, match):
    assert found(line, text, thought=["ideas"]) == match


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("dx please", "dxs please"),
        ("your ..1 thoughts", "your two cents thoughts"),
        ("^ guess", "i guess"),
        ("thoughts $", "thoughts here"),
        ("on sale", "salmon sale"),
    ],
)
def test_a_wording_does_not_match_parts_of_words_or_other_places(line, text):
    assert found(line, text) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a (b|(c)) d", "cannot be read"),
        ("..2", "not optional"),
        ("{absent} x", "no class 'absent'"),
        ("(x|for {word})", "another wording"),
    ],
)
def test_a_wording_that_cannot_be_read_is_told_with_its_file(line, message):
    with pytest.raises(DataError, match=message) as told:
        _ = Wordings((line,), {"word": ["w"]}, "mine.yaml, asks").triggers
    assert "mine.yaml, asks" in str(told.value)


def test_a_text_is_cut_into_clauses_with_their_marks():
    clauses = clauses_of(tokens_of("what is it? p = 0.5, grade 3: see below\nthanks!"))
    assert [" ".join(one.words) for one in clauses] == [
        "what is it",
        "p 0 5 grade 3 :",
        "see below",
        "thanks",
    ]
    assert [one.asked for one in clauses] == [True, False, False, False]
    assert clauses[1].after_commas == (3,)


def test_a_mark_that_stands_alone_asks_about_what_came_before():
    assert clauses_of(tokens_of("granuloma. ?"))[-1].asked


def test_what_is_taken_out_matches_nothing_any_more():
    words = words_of("thanks for your thoughts and any ideas")
    assert Wordings(("thanks for ..1 thoughts",)).without(spaced(words), words) == " | and any ideas "
