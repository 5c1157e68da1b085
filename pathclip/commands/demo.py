"""`pathclip demo`: the whole chain on a synthetic feed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pathclip.commands import flags
from pathclip.commands.pipeline import require_extra

EXAMPLES = """
pathclip demo
pathclip demo --out outputs/demo --posts 300 --seed 1
"""


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


def command(
    out: Annotated[Path, typer.Option(help="Folder of everything that it writes.")] = Path("outputs/demo"),
    posts: Annotated[int, typer.Option(min=200, help="Posts of the synthetic feed.")] = 1500,
    seed: Annotated[int, typer.Option(min=0, help="Of the feed and of the training.")] = 0,
) -> int:
    """Makes a feed of synthetic posts and runs the whole chain on it, from curation to search.

    A few minutes on two cores. The feed is drawn, no patient is behind it, and its figures say nothing
    about real tissue.
    """
    require_extra("train", ("hydra", "torch"))
    from pathclip.demo import demo

    return int(demo(out, posts, seed))
