"""`python -m pathclip.evaluate key=value …` or `… compare A B`, which `pathclip evaluate` becomes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from pathclip.launch import launch


def task_list(arguments: Sequence[str]) -> list[str]:
    """Turns `task=a,b` into `task=[a,b]`, and so for `measure`: both in one run, as Hydra writes it.

    >>> task_list(["model=m", "task=lc25000,oral_oscc", "measure=prompts,few_shot"])
    ['model=m', 'task=[lc25000,oral_oscc]', 'measure=[prompts,few_shot]']

    With `-m` the comma means a sweep, one run per task, and nothing is changed.
    """
    if "-m" in arguments or "--multirun" in arguments:
        return list(arguments)
    return [re.sub(r"^(task|measure)=([\w/-]+(?:,[\w/-]+)+)$", r"\1=[\2]", word) for word in arguments]


def _run(cfg: Any) -> None:
    from pathclip.evaluate.evaluate import evaluate

    evaluate(cfg)


def main(arguments: Sequence[str]) -> int:
    """Measures, or compares what was measured; returns the exit status."""
    if arguments[:1] == ["compare"]:
        from pathclip.evaluate.comparison import compare_command

        return compare_command.main(arguments[1:])
    return launch("evaluate", _run, task_list(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
