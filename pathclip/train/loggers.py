"""Loggers beside the CSV one, each with a message of one line where its package is missing."""

from __future__ import annotations

import importlib
from typing import Any

from pathclip.errors import ConfigError


def tensorboard(out: str) -> Any:
    """Event files in `tensorboard/` of the run folder; `tensorboard --logdir <run folder>` shows them.

    Raises:
        ConfigError: the package is not installed.
    """
    _require("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir=out, name="tensorboard", version="")


def wandb(
    out: str,
    project: str = "pathclip",
    name: str | None = None,
    entity: str | None = None,
    offline: bool = True,
) -> Any:
    """A run of Weights & Biases in `wandb/` of the run folder.

    Args:
        out: the run folder.
        project: under which the run stands.
        name: of the run; the service's own if None.
        entity: user or team; the account's default if None.
        offline: sends nothing. `wandb sync <folder>` sends it later; `false` sends while training.

    Raises:
        ConfigError: the package is not installed.
    """
    _require("wandb")
    from lightning.pytorch.loggers import WandbLogger

    class OneRun(WandbLogger):
        """Ends the service's run with the training: the next job of a sweep would log into it."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            if self._experiment is not None:
                self._experiment.finish(exit_code=0 if status == "success" else 1)

    return OneRun(save_dir=out, project=project, name=name, entity=entity, offline=offline, log_model=False)


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"logger={package}: {error}; install it with `pip install {package}`, or use logger=csv"
        ) from None
