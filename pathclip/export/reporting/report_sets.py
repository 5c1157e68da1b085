"""What the report of an export tells of its sets: how many, from where, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.export.calibration.samples import LabelledSamples
from pathclip.export.calibration.sets import Drawn
from pathclip.export.gate.answers import joined
from pathclip.export.gate.gate import TRAINED_ON, Gate
from pathclip.shards.reader import data_hash

PROMPTS_CHOSE = "class prompts took part in the choice of the recipes, so zero-shot agreement flatters them"


@dataclass(frozen=True, slots=True)
class Sets:
    """What was calibrated, chosen and judged on.

    Attributes:
        shards: folders that the pairs were drawn from.
        calibration: pairs that ranges were read off.
        selection: pairs that recipes were compared on.
        held_out: pairs of the gate.
        labelled: labelled pictures of the gate, if there were any.
        held_out_shards: folders that the pairs of the gate were drawn from.
        source: what those are to the model, as 'validation shards'.
        note: why they are not its validation shards, if so.
        trained_on: the model was trained on the pairs of the gate.
        shared_groups: groups that stand in two of the sets.
        prompts_chose: class prompts took part in the choice of the recipes.
    """

    shards: tuple[str, ...]
    calibration: int
    selection: int
    held_out: int
    labelled: LabelledSamples | None = None
    held_out_shards: tuple[str, ...] = ()
    source: str = ""
    note: str = ""
    trained_on: bool = False
    shared_groups: int = 0
    prompts_chose: bool = False

    def as_json(self) -> dict[str, Any]:
        """Counts and hashes."""
        return {
            "shards": _hashes(self.shards),
            "held_out_shards": _hashes(self.held_out_shards),
            "held_out_source": self.source,
            "held_out_note": self.note,
            "trained_on_held_out": self.trained_on,
            "shared_groups": self.shared_groups,
            "prompts_took_part_in_the_choice": self.prompts_chose,
            "calibration": self.calibration,
            "selection": self.selection,
            "held_out": self.held_out,
            "labelled": len(self.labelled) if self.labelled else 0,
            "labelled_source": self.labelled.source if self.labelled else "",
        }


def sets_of(
    shards: Sequence[Path], drawn: Drawn, labelled: LabelledSamples | None, prompts_chose: bool
) -> Sets:
    """What a report tells of the sets of an export."""
    return Sets(
        tuple(map(str, shards)),
        len(drawn.calibration),
        len(drawn.selection),
        len(drawn.held_out),
        labelled,
        tuple(map(str, drawn.held_out_shards)),
        drawn.source,
        drawn.note,
        drawn.trained_on,
        drawn.shared_groups,
        prompts_chose,
    )


def captions_said(gate: Gate) -> str:
    """Which captions the text lines are judged on."""
    found = gate.details.get("captions")
    if not found:
        return ""
    if not found["fitted"]:
        return f"Text lines are on {found['judged']} different captions; none was calibrated on."
    if found["judged"] < found["distinct"]:
        return (
            f"Text lines are on the {found['judged']} of {found['distinct']} different captions that were "
            "not calibrated on."
        )
    return (
        f"Text lines are on {found['judged']} different captions, of which {found['fitted']} were calibrated "
        "on: too few are left without them."
    )


def shared_said(groups: int) -> str:
    """Of the groups that stand in two sets."""
    return f"{groups} groups in two of them" if groups else "no group in two of them"


def source_said(sets: Sets) -> str:
    """Where the held-out pairs come from; without the paths of this machine."""
    folders = ", ".join(Path(one).name for one in sets.held_out_shards)
    said = f"{sets.source}: {folders}" if folders else sets.source
    return joined(said, TRAINED_ON if sets.trained_on else "", sets.note)


def _hashes(folders: Sequence[str]) -> list[dict[str, Any]]:
    return [{"folder": Path(one).name, "data_hash": data_hash(one)} for one in folders]
