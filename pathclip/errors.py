"""What can go wrong on the user's side. Each message says what, where, and what to do next."""

from __future__ import annotations

import re

# Colours, moves of the cursor, line breaks, marks that turn the direction of writing, halves of characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class PathclipError(Exception):
    """A mistake or a fault that a person can act on; the command line prints its message alone."""


class ConfigError(PathclipError):
    """A key or a value of a configuration is wrong."""


class DataError(PathclipError):
    """Input data is missing or malformed; the message names the file and, where known, the line."""


class ModelFolderError(PathclipError):
    """A model folder is missing a file, was changed, or holds what must not be loaded."""


def escaped(text: object) -> str:
    r"""Text of a stranger on one line, without what a terminal would obey: these are shown as escapes.

    >>> escaped("a\nb\x1b[31m")
    'a\\x0ab\\x1b[31m'
    """
    return _CONTROL.sub(_escape, str(text))


def escaped_lines(text: object) -> str:
    """As `escaped`, for a message of ours of several lines, which stay lines."""
    return "\n".join(escaped(line) for line in str(text).split("\n"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
