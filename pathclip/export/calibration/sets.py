"""The sets of an export: ranges are read off one, recipes chosen on the next, the gate judges on the last.

No two of them share a group. Held-out pairs are the best judges if the model was not trained on them either,
so they come from its validation shards where these are known and still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pathclip.errors import DataError
from pathclip.export.calibration.samples import (
    LEAST,
    Samples,
    apart_by_group,
    as_arrays,
    draw_pool,
    group_of,
)
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.reader import SIZES
from pathclip.shards.writer import Sample

VALIDATION = "validation shards"
TRAINING = "training shards"
OTHER = "other shards"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many pairs, and from where.

    Attributes:
        samples: to read ranges off.
        selection: to choose recipes on.
        held_out: for the gate.
        shards: folders of the first two.
        held_out_shards: folders of the third; None takes the model's validation shards, else `shards`.
        seed: of the draw.
        limit: pairs drawn at most, of the shards and of the held-out shards each.
    """

    samples: int
    selection: int
    held_out: int
    shards: tuple[Path, ...]
    held_out_shards: tuple[Path, ...] | None = None
    seed: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The three sets.

    Attributes:
        calibration: ranges are read off them.
        selection: recipes are chosen on them.
        held_out: the gate judges on them.
        held_out_shards: folders that these come from.
        source: what those folders are to the model: validation, training or other shards.
        note: why it is not the validation shards; '' where it is, or where others were named.
    """

    calibration: Samples
    selection: Samples
    held_out: Samples
    held_out_shards: tuple[Path, ...]
    source: str
    note: str = ""

    @property
    def trained_on(self) -> bool:
        """Whether the model was trained on the held-out pairs."""
        return self.source == TRAINING

    @property
    def shared_groups(self) -> int:
        """Groups that stand in two of the sets; none, if all is well."""
        sets = [{*one.groups} for one in (self.calibration, self.selection, self.held_out)]
        return len(set().union(*(one & other for one, other in combinations(sets, 2))))


def draw_sets(
    wanted: Wanted, training: Mapping[str, Any], preprocess: Preprocess, tokenizer: Tokenizer
) -> Drawn:
    """Draws the three sets.

    Args:
        wanted: numbers and folders.
        training: the card's `training`, which names the folders of training and validation.
        preprocess: of the model.
        tokenizer: of the model.

    Raises:
        DataError: fewer than 8 pairs for one of the sets, a malformed shard or an unreadable image.
    """
    pool = draw_pool(
        wanted.shards, wanted.samples + wanted.selection + wanted.held_out, wanted.seed, wanted.limit
    )
    folders, note = _held_out_folders(wanted, training)
    sets: tuple[list[Sample], ...] = ()
    if folders != wanted.shards:
        fitted = _divided(pool, wanted.samples, wanted.selection)
        judged = _of_other_groups(wanted, folders, fitted)
        if len(judged) < LEAST:
            note = f"{_short(folders)}: {len(judged)} pairs of other groups than were calibrated on"
            if wanted.held_out_shards is not None:
                raise DataError(
                    f"{_names(folders)}: {len(judged)} pairs of other groups than were calibrated on; at "
                    f"least {LEAST} are needed. Name others: calibration.held_out_shards=…"
                )
            folders = wanted.shards
        else:
            sets = (*fitted, judged)
    sets = sets or _divided(pool, wanted.samples, wanted.selection, wanted.held_out)
    if min(map(len, sets)) < LEAST:
        counts = " and ".join(
            f"{len(one)} {what}"
            for one, what in zip(sets, ("for ranges", "to choose", "to judge"), strict=True)
        )
        raise DataError(
            f"{_names(wanted.shards)}: {counts}, of groups of their own; at least {LEAST} pairs of each are "
            "needed. Name more shards: calibration.shards=…, or a larger limit"
        )
    what = ("calibration pairs", "selection pairs", "held-out pairs")
    parts = [as_arrays(one, preprocess, tokenizer, name) for one, name in zip(sets, what, strict=True)]
    return Drawn(parts[0], parts[1], parts[2], folders, _source(folders, training), note)


def folders_of(found: object) -> tuple[Path, ...]:
    """A folder, a list of them or nothing, as config and card name them."""
    if not found:
        return ()
    return tuple(
        Path(str(one))
        for one in (found if isinstance(found, Sequence) and not isinstance(found, str) else [found])
    )


def _held_out_folders(wanted: Wanted, training: Mapping[str, Any]) -> tuple[tuple[Path, ...], str]:
    """Where the held-out pairs are looked for first, and why it is not the validation shards."""
    if wanted.held_out_shards is not None:
        return wanted.held_out_shards, ""
    folders = folders_of(training.get("val"))
    if not folders:
        return wanted.shards, "the model's card names no validation shards"
    if gone := [one for one in folders if not (one / SIZES).is_file()]:
        return wanted.shards, f"the validation shards {_short(gone)} are not there"
    return folders, ""


def _of_other_groups(
    wanted: Wanted, folders: tuple[Path, ...], fitted: Sequence[Sequence[Sample]]
) -> list[Sample]:
    taken = {group_of(sample) for part in fitted for sample in part}
    pool = draw_pool(folders, wanted.held_out, wanted.seed, wanted.limit)
    return [sample for sample in pool if group_of(sample) not in taken][: wanted.held_out]


def _divided(pool: Sequence[Sample], *wanted: int) -> tuple[list[Sample], ...]:
    numbers = apart_by_group([group_of(sample) for sample in pool], *wanted)
    return tuple([pool[number] for number in one] for one in numbers)


def _source(folders: Sequence[Path], training: Mapping[str, Any]) -> str:
    """Pairs of a folder that the model was trained on are such, whatever else it is."""
    for name, what in (("shards", TRAINING), ("val", VALIDATION)):
        known = {one.resolve() for one in folders_of(training.get(name))}
        if known & {one.resolve() for one in folders}:
            return what
    return OTHER


def _names(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))


def _short(folders: Sequence[Path]) -> str:
    """Names without the paths of this machine: notes go into the model folder."""
    return ", ".join(one.name for one in folders)
