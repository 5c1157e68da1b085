"""`python -m pathclip.train key=value …`, which `pathclip train` becomes."""

import sys
from typing import Any

from pathclip.launch import launch


def _run(cfg: Any) -> float | None:
    from pathclip.train.train import train

    return train(cfg).metrics.get("val/loss")


if __name__ == "__main__":
    sys.exit(launch("train", _run))
