"""The report of a curation: one HTML file that needs no other, neither network nor script.

Everything in it that comes from a dump is of unknown origin: text goes through `shown`, pictures are decoded,
made small and encoded anew. What was withdrawn is named but never shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.curate.funnel import RuleScore
from pathclip.curate.funnel_plot import funnel_plot, label, losses, number, share, shown, split_counts
from pathclip.curate.report_examples import EXAMPLES, Example, cards
from pathclip.curate.rules import OPENPATH, OWN, REASONS, RULES
from pathclip.curate.vocabulary import read_yaml
from pathclip.errors import DataError
from pathclip.page import NOTICE, Section, page

FILES = 50  # rows of the table of files
OPEN_FILES = 12  # a longer table opens on a click
LANGUAGES = 25
FILE_COLUMNS = {
    "found": "records",
    "posts": "distinct posts",
    "retweets": "retweets",
    "edits": "edits",
    "media": "pictures",
    "malformed": "malformed",
    "other": "other records",
}
FLAGS = {"panels": "several panels in one picture", "browser": "the frame of a viewer or a browser"}
DIVIDED_BY = {
    "time": "in the order of time: the oldest for training, the newest for test",
    "hash": "by a hash of the group's name",
    "source": "as the source prescribes",
}
# What the steps do that are no rules on single posts: reason → (what it does, whose it is).
STEPS = {
    "repeated": ("A post that the dump holds again, or an earlier version of one.", OWN),
    "malformed": (
        "A line of the dump that is no whole record: cut off, or without what every post has.",
        OWN,
    ),
    "reply_not_most_liked": ("Of each thread only the most liked reply may describe the picture.", OPENPATH),
    "no_image": ("A post without a picture that answers no post with one.", OWN),
    "duplicate_pair": ("The same file with the same caption; the earliest post stays.", OPENPATH),
    "image_unreachable": ("The picture is not in the folder, or cannot be fetched.", OPENPATH),
    "image_opted_out": ("Whoever serves the picture has said that it is not for such use.", OWN),
    "image_undecodable": (
        "The file is broken, of an unknown kind, or larger than what is decoded.",
        OPENPATH,
    ),
    "image_too_small": ("The shorter side has too few pixels.", OWN),
    "mixed_figure": (
        "Several panels, a screenshot, a photographed screen, text over tissue; by default only flagged.",
        OWN,
    ),
    "not_pathology": (
        "Colour and texture tell that no stained tissue is seen; OpenPath trained a classifier for this.",
        f"{OWN}, after {OPENPATH}",
    ),
    "near_duplicate": (
        "Shows what another post showed before: turned, mirrored, resized or encoded anew (perceptual hash).",
        OWN,
    ),
}


@dataclass(frozen=True, slots=True)
class Published:
    """A count that OpenPath's authors published: `beside` 'read', 'pictures' or 'pairs' of the report."""

    count: int
    what: str
    place: str
    beside: str


def render(
    funnel: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    scores: Sequence[RuleScore] = (),
) -> str:
    """The report as HTML.

    Args:
        funnel: the content of `funnel.json`. Needed: 'posts' and 'pairs' (read, steps, kept) and 'splits'
            (name → pairs, or a mapping with pairs, groups, first, last). Shown where present: 'out',
            'source', 'version', 'split_by', 'files', 'leak_check', 'flags', 'languages'.
        examples: reason, or 'kept' → rows drawn by the caller; ten of each are shown.
        scores: of the rules where the truth is known.
    """
    source, published = read_openpath_counts()
    sections = [
        Section("From rows to pairs", funnel_plot(funnel), "Widths are proportional to counts."),
        Section("Step by step", _steps(funnel, published), _citation(source)),
        Section("Splits", _splits(funnel)),
        Section("Rules", _rules(funnel)),
    ]
    if scores:
        caption = (
            "95 % intervals after Wilson (1927). A dash: the rule dropped nothing, or had nothing to find."
        )
        sections.insert(3, Section("Rules against the known truth", _scores(scores), caption))
    if funnel.get("flags"):
        caption = "Flagged pairs are kept; each names in the shards what was seen in its picture."
        sections.append(Section("Mixed figures", _flags(funnel), caption))
    if funnel.get("languages"):
        told = "Of the posts that fell for it."
        sections.append(Section("Languages", _languages(funnel["languages"]), told))
    if funnel.get("files"):
        sections.append(Section("Files of the dump", _files(funnel["files"])))
    sections.append(Section("Examples", _examples(funnel, examples)))
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return page("Curation", sections, _lead(funnel), style)


def read_openpath_counts(file: str = "openpath_counts.yaml") -> tuple[dict[str, str], list[Published]]:
    """What OpenPath's authors published of their own curation.

    Args:
        file: name in `data/`.

    Returns:
        The source (title, authors, journal, doi, preprint) and the counts.

    Raises:
        DataError: no such file, or not of this form.
    """
    try:
        content = read_yaml(file)["openpath"]
        counts = [Published(**row) for row in content["counts"]]
        source = {name: str(content[name]) for name in ("title", "authors", "journal", "doi", "preprint")}
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: not a file of published counts ({error!r})") from None
    return source, counts


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953); (0, 1) where n is 0.

    >>> [round(end, 3) for end in wilson(6, 6)]
    [0.61, 1.0]
    """
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def _lead(funnel: Mapping[str, Any]) -> str:
    posts, pairs = funnel["posts"], funnel["pairs"]
    source = funnel.get("source")
    if isinstance(source, Mapping):
        source = ", ".join(str(value) for value in source.values() if value is not None)
    facts = [("from", source), ("in", funnel.get("out")), ("made by pathclip", funnel.get("version"))]
    told = "; ".join(f"{word} <bdi>{shown(fact)}</bdi>" for word, fact in facts if fact)
    counts = (
        f"{number(pairs['kept'])} pairs from {number(pairs['read'])} pictures of "
        f"{number(posts['kept'])} posts out of {number(posts['read'])} rows"
    )
    return f'<p class="lead">{counts}{"; " if told else ""}{told}.</p><p class="lead">{NOTICE}</p>'


def _name(reason: str) -> str:
    """The reason in plain words, and its code where that is another word."""
    words = label(reason)
    return shown(words) if words == reason else f"{shown(words)} <code>{shown(reason)}</code>"


def _table(head: Sequence[str], rows: Iterable[str], figures: Sequence[int] = ()) -> str:
    cells = "".join(
        f'<th class="figure">{name}</th>' if n in figures else f"<th>{name}</th>"
        for n, name in enumerate(head)
    )
    body = "".join(rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(first: str, figures: Iterable[str], last: str = "", kind: str = "") -> str:
    """A row of a table: HTML, then plain figures, then cells of HTML."""
    cells = "".join(f'<td class="figure">{shown(figure)}</td>' for figure in figures)
    return f'<tr class="{kind}"><td>{first}</td>{cells}{last}</tr>'


def _steps(funnel: Mapping[str, Any], published: Sequence[Published]) -> str:
    def total(name: str, count: int, beside: str) -> str:
        theirs = "".join(
            f'<div title="{shown(one.place)}">{number(one.count)} <small>{shown(one.what)}</small></div>'
            for one in published
            if one.beside == beside
        )
        return _row(name, ("", "", number(count)), f"<td>{theirs or '–'}</td>", "total")

    def dropped(part: Mapping[str, Any]) -> Iterable[str]:
        for step in part["steps"]:
            figures = (
                number(step["dropped"]),
                share(step["dropped"], part["read"]),
                number(step["left"]),
            )
            yield _row(_name(step["reason"]), figures, "<td>–</td>")

    posts, pairs = funnel["posts"], funnel["pairs"]
    rows = [
        total("rows read", posts["read"], "read"),
        *dropped(posts),
        total("posts kept", posts["kept"], "posts"),
        total("pictures with a caption", pairs["read"], "pictures"),
        *dropped(pairs),
        total("pairs", pairs["kept"], "pairs"),
    ]
    return _table(("step", "dropped", "share", "left", "OpenPath"), rows, (1, 2, 3))


def _citation(source: Mapping[str, str]) -> str:
    return (
        f"OpenPath: {source['authors']}, ‘{source['title']}’, {source['journal']}, doi:{source['doi']}; "
        f"preprint doi:{source['preprint']}. A dash: no published count stands beside this step. "
        "Shares of the rules on posts are of the rows read, those of the rules on pictures of the pictures."
    )


def _rules(funnel: Mapping[str, Any]) -> str:
    told = _told()
    reasons = dict.fromkeys(
        [*told, *(step["reason"] for part in ("posts", "pairs") for step in funnel[part]["steps"])]
    )
    rows = []
    for reason in reasons:
        what, whose = told.get(reason, ("–", "–"))
        rows.append(
            f'<tr><td>{_name(reason)}</td><td class="words">{shown(what)}</td><td>{shown(whose)}</td></tr>'
        )
    return _table(("rule", "drops", "after"), rows)


def _told() -> dict[str, tuple[str, str]]:
    """Reason → what the step does and whose it is, in the order of the funnel."""
    rules = {
        rule.reason: ((rule.check.__doc__ or "–").strip().splitlines()[0], str(rule.cites)) for rule in RULES
    }
    told = STEPS | rules
    return {reason: told[reason] for reason in REASONS if reason in told}


def _splits(funnel: Mapping[str, Any]) -> str:
    held = {
        str(name): part if isinstance(part, Mapping) else {}
        for name, part in funnel.get("splits", {}).items()
    }
    counts = split_counts(funnel)
    whole = sum(counts.values())
    columns = [name for name in ("groups", "first", "last") if any(name in part for part in held.values())]
    rows = []
    for name, count in counts.items():
        more = (
            number(held[name][column])
            if column == "groups" and isinstance(held[name].get(column), int)
            else str(held[name].get(column) or "–")[:10]
            for column in columns
        )
        rows.append(_row(shown(name), (number(count), share(count, whole), *more)))
    titles = {"groups": "groups", "first": "first post", "last": "last post"}
    head = ("split", "pairs", "share", *(titles[column] for column in columns))
    parts = [_table(head, rows, range(1, len(head)))]
    if by := funnel.get("split_by"):
        parts.append(f'<p class="caption">Divided {shown(DIVIDED_BY.get(by, f"by {by}"))}.</p>')
    if funnel.get("leak_check") == "passed":
        parts.append(
            '<p class="passed">Checked: no two splits share a group, a picture or a near-duplicate.</p>'
        )
    return "".join(parts)


def _scores(scores: Sequence[RuleScore]) -> str:
    def figure(hits: int, n: int) -> str:
        if n == 0:
            return "–"
        low, high = wilson(hits, n)
        return f"{hits / n:.3f} [{low:.3f}, {high:.3f}]"

    rows = []
    for score in scores:
        hits = round(score.recall * score.n if score.n else 0)
        figures = (number(score.n), number(score.found), figure(hits, score.found), figure(hits, score.n))
        rows.append(_row(_name(score.reason), figures))
    return _table(("rule", "truly", "dropped", "precision", "recall"), rows, (1, 2, 3, 4))


def _flags(funnel: Mapping[str, Any]) -> str:
    kept = funnel["pairs"]["kept"]
    rows = (
        _row(
            f"{shown(FLAGS.get(name, name.replace('_', ' ')))} <code>{shown(name)}</code>",
            (number(count), share(count, kept)),
        )
        for name, count in funnel["flags"].items()
    )
    return _table(("seen in the picture", "pairs", "share"), rows, (1, 2))


def _languages(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    rest = sum(count for _, count in ordered[LANGUAGES:])
    rows = ordered[:LANGUAGES] + ([(f"{len(ordered) - LANGUAGES} others", rest)] if rest else [])
    whole, most = sum(counts.values()), max([1, *(count for _, count in rows)])
    return _table(
        ("language", "posts", "share", ""),
        (
            _row(
                f"<bdi>{shown(name)}</bdi>",
                (number(count), share(count, whole)),
                '<td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
                f'<rect width="{max(100 * count / most, 0.4 if count else 0):.2f}" height="10"/></svg></td>',
            )
            for name, count in rows
        ),
        (1, 2),
    )


def _files(files: Sequence[Mapping[str, Any]]) -> str:
    def figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
        return [number(sum(int(row.get(name) or 0) for row in rows)) for name in FILE_COLUMNS]

    rows = [_row(f"<bdi>{shown(one['file'], 80)}</bdi>", figures([one])) for one in files[:FILES]]
    if rest := files[FILES:]:
        rows.append(_row(f"{number(len(rest))} more files", figures(rest)))
    if len(files) > 1:
        rows.append(_row(f"all {number(len(files))} files", figures(files), kind="total"))
    table = _table(("file", *FILE_COLUMNS.values()), rows, range(1, len(FILE_COLUMNS) + 1))
    if len(files) <= OPEN_FILES:
        return table
    return f"<details><summary>{number(len(files))} files</summary>{table}</details>"


def _examples(funnel: Mapping[str, Any], examples: Mapping[str, Sequence[Example]]) -> str:
    counts = dict([*losses(funnel["posts"]), *losses(funnel["pairs"])]) | {"kept": funnel["pairs"]["kept"]}
    told = _told()
    order = {reason: place for place, reason in enumerate(["kept", *told])}
    blocks = []
    for reason in sorted(examples, key=lambda reason: order.get(reason, len(order))):
        rows = examples[reason]
        few = f"{number(min(len(rows), EXAMPLES))} of {number(counts.get(reason, len(rows)))}"
        what = f'<p class="caption">{shown(told[reason][0])}</p>' if reason in told else ""
        blocks.append(
            f"<details open><summary>{_name(reason)} <span>{few}</span></summary>{what}"
            f"{cards(reason, rows)}</details>"
        )
    return "".join(blocks) or "<p>None.</p>"
