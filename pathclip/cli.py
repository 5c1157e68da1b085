"""The `pathclip` command: a table of verbs, each imported only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from pathclip import __version__
from pathclip.config import nearest
from pathclip.errors import PathclipError, escaped


@dataclass(frozen=True, slots=True)
class Verb:
    """One command.

    Attributes:
        summary: one line for the overview.
        example: arguments that show its use.
        module: has `main(verb, arguments)`, which runs the command and returns the exit status.
    """

    summary: str
    example: str
    module: str


PIPELINE = "pathclip.commands.pipeline"
VERBS = {
    "demo": Verb("the whole chain on a synthetic feed whose truth is known", "", "pathclip.commands.demo"),
    "curate": Verb(
        "posts to image-text pairs in shards",
        "source=twitter source.posts=dump.jsonl source.images=images out=shards",
        PIPELINE,
    ),
    "train": Verb(
        "shards to a model folder", "data.train=shards/train data.val=shards/val out=run", PIPELINE
    ),
    "evaluate": Verb(
        "zero-shot and retrieval of a model folder",
        "model=run/model task=lc25000 out=report",
        PIPELINE,
    ),
    "export": Verb(
        "a model folder to int8 ONNX that needs no torch", "model=run/model out=model-int8", PIPELINE
    ),
    "import": Verb(
        "known weights (OpenAI, Hugging Face, open_clip) to a model folder",
        "vinid/plip --out plip",
        "pathclip.commands.import_folder",
    ),
    "bench": Verb(
        "how fast a model folder runs here, by every runtime",
        "model-int8",
        "pathclip.commands.bench",
    ),
    "classify": Verb(
        "pictures by descriptions of the classes",
        'model-int8 tile.jpg --labels "colon adenocarcinoma,benign colon"',
        "pathclip.commands.classify",
    ),
    "index": Verb(
        "a folder of pictures, to be searched",
        "model-int8 images/ --out images.index",
        "pathclip.commands.index",
    ),
    "search": Verb(
        "an index by a text or a picture",
        'images.index "signet ring cells in a gastric biopsy" -k 10',
        "pathclip.commands.search",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0, 1 for a fault in the input, 2 for a wrong call.

    A `PathclipError` becomes one line on stderr.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in ("--version", "-V"):
        print(f"pathclip {__version__}")
        return 0
    if name not in VERBS:
        print(f"pathclip: there is no '{name}'.{nearest(name, VERBS, n=1)}", file=sys.stderr)
        return 2
    try:
        return int(import_module(VERBS[name].module).main(name, rest))
    except PathclipError as error:
        print(f"pathclip {name}: {escaped(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"pathclip {name}: stopped", file=sys.stderr)
        return 130


def overview() -> str:
    """The text of `pathclip --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    examples = [f"  pathclip {name} {verb.example}".rstrip() for name, verb in VERBS.items()]
    return "\n".join(
        [
            "pathclip: curate, train, evaluate and run CLIP-style encoders for pathology images.",
            "Research software, not for diagnosis.",
            "",
            "Usage: pathclip VERB ...",
            "",
            *lines,
            "",
            "For example:",
            *examples,
            "",
            "`pathclip VERB --help` shows the options of one verb.",
        ]
    )
