"""A small notation for what people write, matched fast: wordings stand in YAML, not in code.

A wording is a line of words and these signs:

======================  =====================================================================
`word`                  this word, without regard to case, accents and the form of apostrophes
`(a|b c|)`              one of these; an empty one makes the group optional
`{name}`                one of the words of the file's class `name`; `{number}` is any number,
                        `{currency}` one of $ € £
`..3`                   at most three words of any kind
`^` and `$`             the start and the end of a clause; `:` a colon that closes it
======================  =====================================================================

Each wording is filed under the rarest words it needs, so that a text costs one look into a table per word
and a regular expression only where such a word occurs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from pathclip.errors import DataError

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[%$€£]")
# Words, and what closes a clause.
_CLOSES = r"|\?[\s?!]*|[.!…](?=[\s\"')\]]|$)|[:;](?=\s|$)|[-–|](?<=\s.)(?=\s)|[—\n¿]|,"
_TOKEN = re.compile(_WORD.pattern + _CLOSES)
_ASCII_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*|[%$]" + _CLOSES)  # twice as fast
# Stands between clauses where several are matched at once, and for what was taken out; matches nothing.
BAR = "|"
CLOSING = frozenset("?.!…:;-–|—\n¿,")
_PART = re.compile(r"\^|\$|\.\.(\d+)|\{(\w+)\}|\(([^()]*)\)|([^\s(){}]+)")
_SIGNS = {
    "^": r"(?:(?<=\A )|(?<=\| ))",
    "$": r"\Z",
    ":": ": ",
    "{number}": r"\d\S* ",
    "{currency}": r"[$€£] ",
}
# Folded to plain letters, so that 'opinión' and 'opinion' are one word; 'ı' is the Turkish i without dot.
_FOLDED = {
    chr(code): letters[0]
    for code in range(0xC0, 0x180)
    if (letters := unicodedata.normalize("NFD", chr(code)).lower())[0].isascii()
} | {"ı": "i", "’": "'", "‘": "'", "ʼ": "'", "ß": "ss", "ø": "o", "ł": "l"}
_FOLDS = re.compile(f"[{''.join(_FOLDED)}]")
# The commonest words tell least; a wording is never filed under one if it holds another.
_COMMON_WORDS = """
    about all also an any are as at back be been best by call can case cases cell cells could did do
    does diagnosis disease for free from get good great had has have he her here high how i i'm if is it
    it's its just left like low may me more my new nice no not old on one or our out pathology right see
    she skin slide so some than that their them there these they this tumor tumour up us was we well
    were what what's when where which who why will would year years you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_COMMONEST = frozenset(("a", "and", "i", "in", "is", "of", "the", "to", "with"))


def plain(text: str) -> str:
    """The text in lower case, Latin letters without accents, apostrophes straight."""
    text = text.lower()
    return text if text.isascii() else _FOLDS.sub(lambda match: _FOLDED[match.group()], text)


def words_of(text: str) -> list[str]:
    """The words of a plain text, and the signs % $ € £."""
    return _WORD.findall(text)


def tokens_of(text: str) -> list[str]:
    """The words of a plain text and, where a clause ends, the sign that closes it."""
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)


def spaced(words: Iterable[str]) -> str:
    """Words as wordings are matched against: one space before, between and after."""
    return f" {' '.join(words)} "


@dataclass(frozen=True, slots=True)
class Clause:
    """A stretch of text between marks.

    Attributes:
        words: its words; a last one ':' says that a colon closes it.
        asked: whether a question mark closes it.
        after_commas: places of words behind a comma.
    """

    words: tuple[str, ...]
    asked: bool = False
    after_commas: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The words as wordings are matched against."""
        return spaced(self.words)


def clauses_of(tokens: Iterable[str]) -> list[Clause]:
    """The clauses of what `tokens_of` found, in order.

    A question mark that stands alone asks about what came before.
    """
    clauses: list[Clause] = []
    words: list[str] = []
    commas: list[int] = []
    for token in tokens:
        if token == ",":
            if words:
                commas.append(len(words))
            continue
        if token[0] not in CLOSING:
            words.append(token)
            continue
        asked = token[0] == "?"
        if words:
            if token[0] == ":":
                words.append(":")
            clauses.append(Clause(tuple(words), asked, tuple(commas)))
            words, commas = [], []
        elif asked and not (clauses and clauses[-1].asked):
            clauses.append(Clause(clauses.pop().words if clauses else (), asked))
    if words:
        clauses.append(Clause(tuple(words), False, tuple(commas)))
    return clauses


@dataclass(frozen=True, slots=True)
class _Wording:
    pattern: re.Pattern[str]
    filed_under: frozenset[str]
    begins: bool = False


@dataclass(frozen=True)
class Wordings:
    """A set of wordings.

    Attributes:
        lines: in the notation above.
        classes: name → words that `{name}` stands for.
        where: file and list, for messages.
    """

    lines: Sequence[str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    where: str = "wordings"

    @cached_property
    def _compiled(self) -> tuple[_Wording, ...]:
        return tuple(_compiled(str(line), self.classes, self.where) for line in self.lines)

    @cached_property
    def _within(self) -> Mapping[str, tuple[re.Pattern[str], ...]]:
        return _filed(one for one in self._compiled if not one.begins)

    @cached_property
    def _beginning(self) -> Mapping[str, tuple[re.Pattern[str], ...]]:
        return _filed(one for one in self._compiled if one.begins)

    @cached_property
    def triggers(self) -> frozenset[str]:
        """Words of which a text holds one if it holds a wording that may stand anywhere."""
        return frozenset(self._within)

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """Words with one of which a clause begins if it holds a wording that stands at the beginning."""
        return frozenset(self._beginning)

    def _patterns(self, words: Sequence[str]) -> Iterator[re.Pattern[str]]:
        if words:
            yield from self._beginning.get(words[0], ())
        if BAR in words:
            for word in {after for bar, after in pairwise(words) if bar == BAR}:
                yield from self._beginning.get(word, ())
        # In the order of the text, so that what is told does not depend on the hashes of words.
        held = set(self.triggers.intersection(words))
        for word in words if held else ():
            if word in held:
                held.discard(word)
                yield from self._within[word]

    def find(self, text: str, words: Sequence[str]) -> str | None:
        """The words of one wording that occurs, or None.

        Args:
            text: as `spaced` makes it.
            words: those of `text`.
        """
        match = self.match(text, words)
        return match.group().strip() if match else None

    def match(self, text: str, words: Sequence[str]) -> re.Match[str] | None:
        """As `find`, with the place."""
        for pattern in self._patterns(words):
            if match := pattern.search(text):
                return match
        return None

    def without(self, text: str, words: Sequence[str]) -> str:
        """The text with all that the wordings cover replaced by a bar, which nothing matches."""
        for pattern in self._patterns(words):
            text = pattern.sub(f" {BAR} ", text)
        return text


def _filed(wordings: Iterable[_Wording]) -> Mapping[str, tuple[re.Pattern[str], ...]]:
    filed: dict[str, list[re.Pattern[str]]] = {}
    for wording in wordings:
        for word in sorted(wording.filed_under):
            filed.setdefault(word, []).append(wording.pattern)
    return {word: tuple(patterns) for word, patterns in filed.items()}


def _compiled(line: str, classes: Mapping[str, Sequence[str]], where: str) -> _Wording:
    expression: list[str] = []
    candidates: list[list[str]] = []
    # Words with which a wording at the start of a clause can begin; None if any can.
    first: list[str] | None = [] if line.startswith("^") else None
    settled = False
    text, position = plain(line).rstrip(), 0
    for part in _PART.finditer(text):
        if text[position : part.start()].strip():
            break
        position = part.end()
        gap, name, group, word = part.groups()
        if gap is not None:
            expression.append(rf"(?:\S+ ){{0,{int(gap)}}}")
            first = first if settled else None
            continue
        choices = _choices(name, group, word or part.group(), classes, where)
        expression.append("(?:" + "|".join(map(_expression, choices)) + ")")
        if choices == ["{currency}"]:
            candidates.append(list("$€£"))
        elif all(map(_words_in, choices)):
            candidates.append([_rarest(choice) for choice in choices])
        if first is not None and not settled and part.group() != "^":
            settled = all(map(_words_in, choices))
            first += [_words_in(choice)[0] for choice in choices if _words_in(choice)]
    if position != len(text):
        raise DataError(f"{where}: '{line}' cannot be read from '{text[position:].strip()}' on")
    if not candidates:
        raise DataError(f"{where}: '{line}' needs a word that is not optional")
    filed_under = min(candidates, key=lambda words: (sum(map(_commonness, words)), len(words)))
    pattern = re.compile(" " + "".join(expression))
    if first and settled:
        return _Wording(pattern, frozenset(first), begins=True)
    return _Wording(pattern, frozenset(filed_under))


def _choices(
    name: str | None, group: str | None, word: str, classes: Mapping[str, Sequence[str]], where: str
) -> list[str]:
    if name in ("number", "currency"):
        return [f"{{{name}}}"]
    if name is not None:
        if name not in classes:
            raise DataError(f"{where}: there is no class '{name}'. Known: {', '.join(sorted(classes))}")
        return [plain(str(choice)) for choice in classes[name]]
    if group is None:
        return [word]
    choices: list[str] = []
    for choice in group.split("|"):
        held = [part for part in choice.split() if part[0] == "{" and part not in _SIGNS]
        if held and choice.strip() != held[0]:
            raise DataError(f"{where}: '{choice}' holds a class among words; write it as another wording")
        inner = re.fullmatch(r"\{(\w+)\}", choice.strip())
        choices += _choices(inner[1], None, "", classes, where) if inner else [choice.strip()]
    return choices


def _expression(choice: str) -> str:
    found = []
    for part in choice.split():
        found.append(_SIGNS.get(part) or "".join(f"{re.escape(word)} " for word in words_of(part)))
    return "".join(found)


def _words_in(choice: str) -> list[str]:
    return [word for part in choice.split() if part not in _SIGNS for word in words_of(part)]


def _rarest(choice: str) -> str:
    return min(_words_in(choice), key=lambda word: (_commonness(word), -len(word)))


def _commonness(word: str) -> int:
    return 20 if word in _COMMONEST else int(word in _COMMON)


def read_wordings(content: Mapping[str, Any], key: str, file: str) -> Wordings:
    """The wordings of one list of a YAML file, with the file's classes.

    Raises:
        DataError: the list is missing.
    """
    lines, classes = content.get(key), content.get("classes", {})
    if not isinstance(lines, list) or not isinstance(classes, dict):
        raise DataError(f"{file}: a list '{key}' is needed")
    split = {str(name): _words(words) for name, words in classes.items()}
    return Wordings(tuple(map(str, lines)), split, f"{file}, {key}")


def _words(words: Any) -> list[str]:
    """A class is a list, or a line of words."""
    return words.split() if isinstance(words, str) else [str(word) for word in words]
