"""`pathclip evaluate compare A B …`: flags instead of overrides, because it reads no config."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from pathclip.errors import PathclipError

EXAMPLES = """\
for example:
  pathclip evaluate compare reports/lite reports/vit
  pathclip evaluate compare reports/lite reports/vit --out reports/lite-vit
  pathclip evaluate compare reports/lite --json      (int8 with fp32, trained with untrained)
"""


def main(arguments: Sequence[str]) -> int:
    """Compares reports and prints the table; returns the exit status."""
    given = _parser().parse_args(list(arguments))
    try:
        return _run(given)
    except PathclipError as error:
        print(f"pathclip evaluate compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pathclip evaluate compare: stopped", file=sys.stderr)
        return 130


def _run(given: argparse.Namespace) -> int:
    from pathclip.evaluate.comparison import compare_report
    from pathclip.evaluate.comparison.compare import compare
    from pathclip.evaluate.comparison.saved_report import open_report

    found = compare([open_report(one) for one in given.reports], given.resamples, given.seed)
    written = []
    if given.out:
        try:
            written = compare_report.write_comparison(given.out, found)
        except (FileExistsError, NotADirectoryError):
            raise PathclipError(f"--out: {given.out} is a file; name a folder") from None
        except PermissionError:
            raise PathclipError(f"--out: {given.out} may not be written to") from None
    if given.json:
        print(json.dumps(compare_report.as_json(found), indent=2, sort_keys=True, ensure_ascii=False))
        return 0
    compare_report.print_comparison(found)
    if written:
        print(f"report: {written[0]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pathclip evaluate compare",
        description="Compares reports of `pathclip evaluate` picture by picture: differences with paired "
        "intervals over groups, p-values corrected after Holm, and a verdict.",
        epilog=EXAMPLES + "\nResearch software, not for diagnosis.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "reports", nargs="+", metavar="REPORT", help="folder with report.json; named A, B, C …"
    )
    parser.add_argument("--out", metavar="FOLDER", help="also write compare.html, .json, .md and .tex there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of a table")
    parser.add_argument(
        "--resamples", type=_positive, default=10_000, help="of bootstrap and swap test (10000)"
    )
    parser.add_argument("--seed", type=_not_negative, default=0, help="of both (0)")
    return parser


def _positive(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got '{text}'")
    return int(text)
