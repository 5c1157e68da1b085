"""`pathclip curate|train|evaluate|export`: short help, and the hand-over to Hydra."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from pathclip.config import config_dir
from pathclip.errors import PathclipError
from pathclip.runtime.processes import own_code_only

SUMMARIES = {
    "curate": "Turns posts with pictures into image-text pairs in shards; every dropped row has a reason.",
    "train": "Trains a dual encoder on shards and writes a model folder. ckpt=last continues a killed run.",
    "evaluate": "Measures a model folder: zero-shot, retrieval; writes report.json and report.html.",
    "export": "Turns a model folder into ONNX, int8 where that costs no accuracy; the result needs no torch.",
}
EXAMPLES = {
    "curate": [
        "source=twitter source.posts=dump.jsonl source.images=images out=shards",
        "source=table source.posts=pairs.csv source.images=images out=shards limit=1000",
        "source=synthetic out=shards debug=tiny",
    ],
    "train": [
        "data.train=shards/train data.val=shards/val out=run",
        "data.train=shards/train model=lite loss=multi_positive optim.lr=1e-4",
        "experiment=demo out=outputs/first",
        "experiment=distill teacher=run/model data.train=shards/train data.unlabelled=patches out=student",
        "-m optim.lr=1e-4,1e-5 debug=tiny",
    ],
    "evaluate": [
        "model=run/model task=lc25000 out=report",
        "model=model-int8 task=[lc25000,oral_oscc] precision=int8 limit=500",
        "model=run/model untrained=run/untrained task=shards",
    ],
    "export": [
        "model=run/model out=model-int8",
        "model=run/model out=model-int8 calibration.shards=shards/train keep_fp32=true",
        "model=run/model out=model-int8 task=lc25000 search=full",
        "model=run/model out=model-int8 recipe=naive force=true",
    ],
}
NOTES = {
    "evaluate": [
        "`pathclip evaluate compare REPORT REPORT` tells whether two reports differ by more than luck.",
    ],
}
NEEDS = {
    "curate": ("curate", ("hydra",)),
    "train": ("train", ("hydra", "torch")),
    "evaluate": ("train", ("hydra", "torch")),
    "export": ("train", ("hydra", "torch")),
}


def main(verb: str, arguments: Sequence[str]) -> int:
    """Prints the help, or becomes `python -m pathclip.<verb>` with the same arguments.

    It becomes that process instead of calling a function because Lightning starts its further DDP
    ranks with the command line of the process it finds itself in. Unlike the `pathclip` program,
    `python -m` would import from the working directory first: `own_code_only` forbids that.
    """
    compares = verb == "evaluate" and list(arguments[:1]) == ["compare"]
    if not compares and any(word in ("--help", "-h") for word in arguments):
        print(help_text(verb))
        return 0
    require_extra(*(("train", ("pyarrow",)) if compares else NEEDS[verb]))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", f"pathclip.{verb}", *arguments], own_code_only())


def require_extra(extra: str, packages: Iterable[str]) -> None:
    """Raises PathclipError with the command to install, unless all packages can be imported."""
    if not all(find_spec(package) for package in packages):
        raise PathclipError(f"this needs more than the base install: pip install 'pathclip[{extra}]'")


def help_text(verb: str) -> str:
    """What the verb does, examples, config groups with their choices, and the keys of its root config."""
    root = config_dir() / f"{verb}.yaml"
    lines = [SUMMARIES[verb], "", f"Usage: pathclip {verb} [key=value ...]", "", "For example:"]
    lines += [f"  pathclip {verb} {example}" for example in EXAMPLES[verb]]
    if root.is_file():
        text = root.read_text(encoding="utf-8")
        lines += ["", "Groups (group=choice; the default in brackets):"]
        lines += _columns(_groups(text))
        lines += ["", "Keys:"]
        lines += _columns(_keys(text))
    lines += [
        "",
        f"`pathclip {verb} --cfg job` shows every key with its value; add overrides to see their effect.",
    ]
    lines += NOTES.get(verb, [])
    lines += ["-m runs one job per choice of key=a,b. Research software, not for diagnosis."]
    return "\n".join(lines)


def _groups(root: str) -> Iterable[tuple[str, str]]:
    """Config group → its choices, the default marked, from the defaults list of a root config.

    Read by line, not by a YAML parser: the base install has none.
    """
    for group, default in re.findall(
        r"^\s+- (?:optional |override )?/?([\w/]+)(?:@\w+)?: *(\w+)", root, re.MULTILINE
    ):
        choices = sorted(file.stem for file in (config_dir() / group).glob("*.yaml"))
        if group != "paths" and choices:
            yield group, ", ".join(f"[{choice}]" if choice == default else choice for choice in choices)


def _keys(root: str) -> Iterable[tuple[str, str]]:
    """Keys of the first two levels → comment; with its value where a key has one."""
    above = ""
    for indent, key, value, comment in re.findall(
        r"^( {2})?(\w+): *([^#\n]*?) *(?:# *(.*))?$", root, re.MULTILINE
    ):
        if not indent:
            above = key
        if above in ("defaults", "hydra") or key.startswith("_"):
            continue
        name = f"{above}.{key}" if indent else key
        yield f"{name}={value}" if value else f"{name}.…", comment


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = min(28, max((len(left) for left, _ in rows), default=0))
    return [f"  {left:<{width}}  {right}".rstrip() for left, right in rows]
