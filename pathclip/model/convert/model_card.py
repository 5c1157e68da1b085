"""What the folder of imported weights says of where they came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip import __version__
from pathclip.errors import escaped
from pathclip.model.card_text import NOTICE, USAGE
from pathclip.runtime.preprocess import Preprocess

NOT_STATED = "not stated"
_MOST_BYTES = 1 << 20  # of a README
_LINE = re.compile(
    # One value, or a list of them on the lines below.
    r"^(license|license_name|licence)[ \t]*:[ \t]*(.*(?:\n[ \t]*-[ \t].*)*)$",
    re.MULTILINE,
)
_MOST_CHARACTERS = 200  # of a licence's name


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights came from.

    Attributes:
        source: hub id, or name of the file or folder.
        layout: whose form it was, for people.
        revision: commit of the hub; None for files.
        files: what was read → SHA-256.
    """

    source: str
    layout: str
    revision: str | None
    files: Mapping[str, str]

    def card(self) -> dict[str, Any]:
        """The entry `source` of a card."""
        return {
            "source": self.source,
            "layout": self.layout,
            "revision": self.revision,
            "files": dict(self.files),
        }


def stated_licence(folder: Path) -> str:
    """The licence that the front matter of a folder's README names, or 'not stated'."""
    file = folder / "README.md"
    if not file.is_file():
        return NOT_STATED
    with file.open("rb") as opened:
        text = opened.read(_MOST_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    named = {key: _value(found) for key, found in _LINE.findall(front[1])} if front else {}
    # 'other' says that the name stands in a second entry.
    found = named.get("license") or named.get("licence") or ""
    if found == "other":
        found = named.get("license_name") or found
    return found or NOT_STATED


def _value(written: str) -> str:
    """One line of a value of YAML: of a list its entries with commas between, without comments and quotes."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in written.split("\n"))
    values = (line.removeprefix("- ").strip().strip("'\"") for line in lines)
    return escaped(", ".join(value for value in values if value))[:_MOST_CHARACTERS]


def readme(card: Mapping[str, Any], origin: Origin) -> str:
    """Markdown of the folder: what the model is, where it came from, under which licence."""
    height, width = Preprocess.from_card(card["preprocess"]).size
    revision = f" at revision `{origin.revision}`" if origin.revision else ""
    cleaning = card.get("text_cleaning")
    lines = [
        f"# {card['name']}",
        "",
        f"An image-text dual encoder, imported. {NOTICE}",
        "",
        *USAGE,
        "",
        f"- Source: {origin.source}{revision}, {origin.layout}.",
        f"- Licence of the weights: {card['licence']}.",
        f"- Input: RGB pictures, brought to {height}x{width} pixels; texts of at most "
        f"{card['context_length']} tokens{f', cleaned first ({cleaning})' if cleaning else ''}.",
        f"- Output: embeddings of {card['embed_dim']} numbers, of length 1; logit scale "
        f"{card['logit_scale']}, bias {card['logit_bias']}.",
        "- Which pictures it was trained on is not recorded: an evaluation cannot tell whether it knew them.",
        f"- Imported by pathclip {__version__}; tensors are the source's, in 32-bit floats.",
        "",
        "Files that were read:",
        "",
        "| file | SHA-256 |",
        "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in sorted(origin.files.items())),
    ]
    return "\n".join(lines) + "\n"
