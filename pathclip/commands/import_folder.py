"""`pathclip import`: known weights to a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pathclip.commands import flags
from pathclip.commands.pipeline import require_extra

EXAMPLES = """
pathclip import vinid/plip --out plip
pathclip import wisdomik/QuiltNet-B-32 --out quiltnet
pathclip import ViT-B-32.pt --licence MIT --out clip
pathclip import epoch_32.pt --model ViT-B-32 --out mine
pathclip export model=plip calibration.shards=shards/train out=plip-int8
"""


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder that open_clip or transformers saved, file of weights, or ORG/NAME on the Hugging "
            "Face hub.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model folder.", show_default=False)],
    sha256: Annotated[
        str | None,
        typer.Option(help="SHA-256 of the file of weights, compared before it is read.", show_default=False),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights; else what the source says.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the model, for cards and reports.", show_default=False)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="open_clip's architecture, for a file without a config.", show_default=False),
    ] = None,
) -> int:
    """Turns weights of OpenAI's CLIP, PLIP, QuiltNet, SigLIP or another CLIP into a model folder.

    Nothing in a source is run: of pickles the tensors alone are read, of TorchScript not the program.
    """
    require_extra("train", ("torch", "open_clip"))
    from pathclip.model.convert.source import located
    from pathclip.model_folder import open_model_folder
    from pathclip.runtime.images import printable

    with located(source, revision) as found:
        # Only now, because it imports torch, and what is not there is told at once.
        from pathclip.model.convert.import_model import ImportOptions, import_model

        written = import_model(found, out, ImportOptions(sha256, licence, name, model))
    card = open_model_folder(written, verify=False).card
    print(f"{printable(written)}: {card['name']}, {card['source']['layout']}; licence {card['licence']}")
    return 0
