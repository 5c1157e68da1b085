"""`python -m pathclip.curate key=value …`, which `pathclip curate` becomes."""

import sys
from typing import Any

from pathclip.launch import launch


def _run(cfg: Any) -> None:
    from pathclip.curate.curate import curate
    from pathclip.curate.withdraw import withdraw_from

    withdraw_from(cfg) if cfg.source.get("platform") == "shards" else curate(cfg)


if __name__ == "__main__":
    sys.exit(launch("curate", _run))
