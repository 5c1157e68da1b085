"""The thresholds of the rules on posts, and the vocabularies that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Literal

from pathclip.config import nearest
from pathclip.curate.advertisements import Advertisements, read_advertisements
from pathclip.curate.language import FunctionWords, LanguageDetector, read_function_words
from pathclip.curate.questions import Questions, read_question_wordings
from pathclip.curate.vocabulary import DiseaseTerms, read_disease_terms, read_hashtags
from pathclip.errors import ConfigError

# Reason codes of the rules on single posts, in the order in which they are asked.
POST_RULES = (
    "deleted",
    "retweet",
    "sensitive",
    "withheld",
    "outside_dates",
    "no_hashtag",
    "question",
    "too_short",
    "language",
    "reply_without_diagnosis",
    "advertisement",
)


@dataclass(frozen=True)
class RuleSettings:
    """The thresholds of all rules on posts; a rule whose setting is None or empty is off.

    Attributes:
        skip: reason codes of rules that are not asked.
        since: first day that counts (ISO 8601), None for no limit.
        until: last day that counts.
        hashtags: lists of `hashtag_file` of which a post must carry one tag; empty for no condition.
        hashtag_file: YAML of hashtag lists.
        question: 'published': any question mark drops a post, as in OpenPath; 'careful': what
            `pathclip.curate.questions` holds for a question; None: questions stay.
        question_marks: the characters that count as question marks.
        question_wordings: YAML of how people ask.
        answer_words: an answer that does not begin as one names its finding within so many words.
        answer_clauses: how many clauses after a question may answer it.
        choice_words: most words of a bare choice between two findings, which asks.
        question_score: weight of hints from which a clause asks that holds no wording; None for no hints.
        judged_chars: of a longer text only the start is searched for questions and advertisements.
        min_words: fewest words of a caption after cleaning.
        min_reply_words: the same for replies, where one word can be the diagnosis.
        languages: that are kept (ISO 639-1).
        other_languages: that the detector chooses among besides.
        language_certainty: probability from which another language counts as found.
        language_min_words: shorter captions are not judged.
        function_words: YAML of small words by language, which are asked before the detector.
        language_evidence: so many different small words tell another language without it.
        platform_language: believe the platform's own guess where it is a kept language and no small word of
            another contradicts.
        disease_terms: YAML vocabulary of which a reply must name a term.
        advertisement_score: weight of cues from which a post advertises; None for no such rule.
        advertisement_wordings: YAML of these cues.
    """

    skip: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    hashtags: Sequence[str] = ()
    hashtag_file: str = "hashtags.yaml"
    question: Literal["published", "careful"] | None = None
    question_marks: str = "?"
    question_wordings: str = "questions.yaml"
    answer_words: int = 3
    answer_clauses: int = 4
    choice_words: int = 6
    question_score: float | None = 2.0
    judged_chars: int = 4000
    min_words: int = 1
    min_reply_words: int = 1
    languages: Sequence[str] = ()
    other_languages: Sequence[str] = ()
    language_certainty: float = 0.6
    language_min_words: int = 3
    function_words: str = "function_words.yaml"
    language_evidence: int = 2
    platform_language: bool = True
    disease_terms: str = "disease_terms.yaml"
    advertisement_score: float | None = None
    advertisement_wordings: str = "advertisements.yaml"

    def __post_init__(self) -> None:
        for reason in self.skip:
            if reason not in POST_RULES:
                raise ConfigError(f"rules.skip: '{reason}' is no rule.{nearest(reason, POST_RULES)}")
        self.window  # noqa: B018  a malformed date is told now

    @cached_property
    def tags(self) -> frozenset[str]:
        """Hashtags of which one is needed, in lower case."""
        return read_hashtags(self.hashtags, self.hashtag_file)

    @cached_property
    def diseases(self) -> DiseaseTerms:
        """The vocabulary for replies."""
        return read_disease_terms(self.disease_terms)

    @cached_property
    def detector(self) -> LanguageDetector:
        """The language detector over kept and other languages."""
        return LanguageDetector(tuple(dict.fromkeys([*self.languages, *self.other_languages])))

    @cached_property
    def small_words(self) -> FunctionWords:
        """Small words by language."""
        return read_function_words(self.function_words)

    @cached_property
    def questions(self) -> Questions:
        """Finds what a text asks."""
        return Questions(
            read_question_wordings(self.question_wordings),
            self.diseases.find_specific,
            self.question_marks,
            self.answer_words,
            self.answer_clauses,
            self.choice_words,
            self.question_score,
        )

    @cached_property
    def advertisements(self) -> Advertisements:
        """Finds what a text advertises."""
        return read_advertisements(self.advertisement_wordings, self.advertisement_score or 0.0)

    @cached_property
    def window(self) -> tuple[datetime | None, datetime | None]:
        """First and last moment that count, in UTC."""
        try:
            since = datetime.combine(date.fromisoformat(self.since), time.min, UTC) if self.since else None
            until = datetime.combine(date.fromisoformat(self.until), time.max, UTC) if self.until else None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"rules.since, rules.until: a day as in 2022-11-15 ({error})") from None
        return since, until
