"""Tells whether a post asks its readers something, instead of describing its picture.

OpenPath dropped tweets with a question mark, because such tweets often ask about the picture (Huang et al.
2023, Methods); `published` in `pathclip.curate.rules` does just that. This module is our own and more
careful: it also hears questions without a mark, and lets those pass that ask nobody.

How it decides:

1. Marks that ask nothing are taken out: in links, in quotations, in brackets that doubt a part
   ("reactive (?)", "(smooth muscle?)"), before a word ("?early dysplasia"), after words of suspicion
   ("clinically ? BCC").
   So uncertainty about a part is description, not a question.
2. The text is cut into clauses. A clause asks if a mark closes it or if it holds a wording of the lists
   `audience` or `open` in `data/questions.yaml`, or weak hints that weigh enough together.
3. It asks nobody if it is rhetorical, is the title of a publication, or is answered by what follows: an
   explicit solution answers every question, a plain finding only those that are not put to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from pathclip.curate.cues import Cues, read_cues
from pathclip.curate.vocabulary import read_yaml
from pathclip.curate.wordings import (
    CLOSING,
    Clause,
    Wordings,
    clauses_of,
    read_wordings,
    spaced,
    tokens_of,
    words_of,
)

_QUOTED = re.compile(r"[\"“”«„]([^\"“”«»„\n]{3,200})[\"”“»]")
_BRACKETED = re.compile(r"([(\[])([^()\[\]\n]{0,60}?)\s?\?{1,5}\s?([)\]])")
_BEFORE_WORD = re.compile(r"(?:^|(?<=[\s(/,;:-]))\?{1,3}(?=[^\W_])")
_APART = re.compile(r"(?<=\S)[ \t]\?{1,3}[ \t](?=[^\W_])")
# Hashtags before or behind a sentence are no words of it; inside one they are.
_TAGS = re.compile(r"(?:(?<=\s)|^)[#＃]\w+(?=\s*(?:[#＃\n]|$))|^\s*[#＃]\w+")


@dataclass(frozen=True)
class QuestionWordings:
    """The lists of `data/questions.yaml`, which says what each is for."""

    audience: Wordings
    open: Wordings
    open_with_mark: Wordings
    rhetorical: Wordings
    reported: Wordings
    solution: Wordings
    postponed: Wordings
    answers: Wordings
    history: Wordings
    publication: Wordings
    suspicion: Wordings
    teasing: Wordings
    no_hint: Wordings
    hints: Cues
    not_behind_comma: frozenset[str]

    @cached_property
    def triggers(self) -> frozenset[str]:
        """Words of which a clause without a mark must hold one to ask, unless it begins as a question."""
        return self.audience.triggers | self.open.triggers | {"or", "vs", "versus"}

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """Words with one of which a clause begins as a question."""
        return self.audience.beginnings | self.open.beginnings


def read_question_wordings(file: str = "questions.yaml") -> QuestionWordings:
    """Reads the lists.

    Raises:
        DataError: no such file, a list is missing, or a wording cannot be read.
    """
    content = read_yaml(file)
    return QuestionWordings(
        **{
            entry.name: read_wordings(content, entry.name, file)
            for entry in fields(QuestionWordings)
            if entry.name not in ("hints", "not_behind_comma")
        },
        hints=read_cues(content, "hints", file),
        not_behind_comma=frozenset(map(str, content.get("not_behind_comma") or ())),
    )


@dataclass(frozen=True)
class Questions:
    """Finds what a text asks.

    Attributes:
        wordings: how people ask.
        finding: tells the disease that some words name, or None: what an answer must state.
        marks: the characters that count as question marks.
        answer_words: an answer that does not begin as one names its finding within so many words.
        look_ahead: how many clauses after a question may still answer it.
        longest_choice: most words of a bare choice between two findings, which asks.
        score: weight of hints from which a clause asks that holds no wording; None for no hints.
    """

    wordings: QuestionWordings
    finding: Callable[[str], str | None]
    marks: str = "?"
    answer_words: int = 3
    look_ahead: int = 4
    longest_choice: int = 6
    score: float | None = 2.0

    def find(self, text: str, tokens: Sequence[str]) -> str | None:
        """The words that ask, as they were compared; None if nothing is asked.

        Args:
            text: of a post, without links, as `plain` returns it.
            tokens: what `tokens_of` finds in it.
        """
        if self._mark.search(text):
            tokens = tokens_of(self._only_asking_marks(_without_tags(text)))
        elif not self._may_ask(tokens):
            return None
        elif "#" in text or "＃" in text:
            tokens = tokens_of(_without_tags(text))
        clauses = clauses_of(tokens)
        for place, clause in enumerate(clauses):
            if found := self._asks(clause, clauses[place + 1 :], clauses):
                return found
        return None

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        return re.compile(f"[{re.escape(self.marks)}]" if self.marks else r"(?!)")

    def _may_ask(self, tokens: Sequence[str]) -> bool:
        """Whether it is worth while to look at the clauses of a text without a mark."""
        if not self.wordings.triggers.isdisjoint(tokens):
            return True
        if self.score is not None and self.wordings.hints.may_weigh(tokens, self.score):
            return True
        begins = self.wordings.beginnings
        if begins.isdisjoint(tokens):
            return False
        closed = True
        for token in tokens:
            if closed and token in begins:
                return True
            closed = token[0] in CLOSING
        return False

    def _only_asking_marks(self, text: str) -> str:
        for mark in self.marks:
            if mark != "?":
                text = text.replace(mark, "?")
        text = _QUOTED.sub(self._quotation, text)
        text = _BRACKETED.sub(self._bracket, text)
        text = _BEFORE_WORD.sub(" ", text)
        return _APART.sub(lambda match: self._apart(text, match), text)

    def _quotation(self, match: re.Match[str]) -> str:
        """A quotation that asks is a title or somebody else's question, unless it is put to the reader."""
        if "?" not in match[1]:
            return match.group()
        words = words_of(match[1])
        return f" {match[1]} " if self.wordings.audience.find(spaced(words), words) else " "

    def _bracket(self, match: re.Match[str]) -> str:
        words = words_of(match[2])
        inner = spaced(words)
        asks = any(found.find(inner, words) for found in (self.wordings.audience, self.wordings.open))
        return f" {match[2]}? " if asks else f"{match[1]}{match[2]}{match[3]}"

    def _apart(self, text: str, match: re.Match[str]) -> str:
        """A mark between two words: a suspicion after 'clinically', else the French way to set it."""
        before = clauses_of(tokens_of(text[max(0, match.start() - 80) : match.start()]))
        last = before[-1] if before else None
        if last and self.wordings.suspicion.find(last.text, last.words) and not self._form(last):
            return " "
        return "? "

    def _form(self, clause: Clause) -> str | None:
        found = self.wordings.audience.find(clause.text, clause.words)
        return found or self.wordings.open.find(clause.text, clause.words)

    def _asks(self, clause: Clause, later: Sequence[Clause], clauses: Sequence[Clause]) -> str | None:
        known = self.wordings
        words = clause.words
        begins = words and (
            words[0] in known.beginnings or any(words[place : place + 1] for place in clause.after_commas)
        )
        if not (clause.asked or begins or not known.triggers.isdisjoint(words)):
            return self._hinted(clause, later)
        reduced = known.reported.without(clause.text, clause.words)
        if known.rhetorical.find(clause.text, clause.words):
            # What is left besides the rhetorical part may ask after all.
            rest = known.rhetorical.without(reduced, clause.words)
            return None if not known.audience.find(rest, clause.words) else self._told(clause)
        addressed = known.audience.find(reduced, clause.words)
        plainly = known.open.find(reduced, clause.words) or self._behind_comma(clause)
        plainly = plainly or self._alternatives(clause)
        if not (addressed or plainly or clause.asked):
            return self._hinted(clause, later)
        if self._solved(later):
            return None
        if addressed:
            return addressed
        if self._answered(clause, later, bool(plainly)):
            return None
        if clause.asked and any(known.publication.find(one.text, one.words) for one in clauses):
            return None
        return plainly or self._told(clause)

    def _hinted(self, clause: Clause, later: Sequence[Clause]) -> str | None:
        """Weak signs that weigh enough together, in a clause that holds no wording."""
        known = self.wordings
        if self.score is None or not known.hints.may_weigh(clause.words, self.score):
            return None
        text = known.reported.without(clause.text, clause.words)
        text = known.no_hint.without(text, clause.words)
        told = known.hints.weigh(text, clause.words, self.score)
        return ", ".join(told) if told and not self._solved(later) else None

    def _behind_comma(self, clause: Clause) -> str | None:
        """A question that begins behind a comma: 'GI friends, is this dysplasia'."""
        for place in clause.after_commas:
            words = clause.words[place:]
            known = [self.wordings.open]
            if words and words[0] not in self.wordings.not_behind_comma:
                known.append(self.wordings.audience)
            for one in known:
                if words and words[0] in one.beginnings and (found := one.find(spaced(words), words)):
                    return found
        return None

    def _alternatives(self, clause: Clause) -> str | None:
        """Two findings to choose between and nothing else: 'Melanoma or nevus'."""
        if len(clause.words) > self.longest_choice:
            return None
        for word in ("or", "vs", "versus"):
            if word in clause.words:
                place = clause.words.index(word)
                sides = " ".join(clause.words[:place]), " ".join(clause.words[place + 1 :])
                if all(self.finding(side) for side in sides) or sides[1] == "not":
                    return " ".join(clause.words)
        return None

    @staticmethod
    def _told(clause: Clause) -> str:
        return (" ".join(clause.words[-8:]) + "?") if clause.words else "?"

    def _solved(self, later: Sequence[Clause]) -> bool:
        """Whether an explicit solution follows, and not the promise of one."""
        known = self.wordings
        for place, clause in enumerate(later):
            if known.solution.find(clause.text, clause.words):
                follows = later[place + 1 : place + 2]
                postponed = any(known.postponed.find(one.text, one.words) for one in (clause, *follows))
                return not postponed
        return False

    def _answered(self, clause: Clause, later: Sequence[Clause], plainly: bool) -> bool:
        """Whether the next clause that states something answers."""
        known = self.wordings
        statements = [one for one in later[: self.look_ahead] if not one.asked]
        if not statements:
            return False
        statement = statements[0]
        is_open = plainly or known.open_with_mark.find(clause.text, clause.words) is not None
        first = " ".join(statement.words[: self.answer_words])
        names_first = self.finding(first) is not None
        if known.teasing.find(clause.text, clause.words):
            named = (one for one in statements if self.finding(one.text))
            if any(not known.history.find(one.text, one.words) for one in named):
                return True
        if known.history.find(statement.text, statement.words) and not names_first:
            return False
        states = self.finding(statement.text) is not None
        own = self.finding(clause.text) is not None
        if known.answers.find(statement.text, statement.words):
            states = states or any(self.finding(one.text) for one in statements[1:2])
            return states or own or clause.words[:1] in (("why",), ("how",))
        alternatives = not {"or", "vs", "versus"}.isdisjoint(statement.words)
        if not is_open or alternatives:
            return False
        explains = own and len(statement.words) > self.answer_words
        return names_first or explains


def _without_tags(text: str) -> str:
    return _TAGS.sub("\n", text) if "#" in text or "＃" in text else text
