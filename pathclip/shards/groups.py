"""Which samples of the shuffle window share a global batch: any, those of one group, or none of one group.

Each function takes references in shard order and gives whole batches; what is left at the end and fills no
batch is left out. Draws come from `seed` alone, and nothing is lost or repeated.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Literal

from pathclip.shards.order import Reference, shuffled

Groups = Literal["any", "together", "apart"]
GroupOf = Callable[[Reference], int]


def any_batches(
    references: Iterable[Reference], size: int, window: int, seed: int, group_of: GroupOf
) -> Iterator[list[Reference]]:
    """Batches whatever the groups are; these are not even looked up."""
    stream = shuffled(references, window, seed)
    while len(batch := list(islice(stream, size))) == size:
        yield batch


def together_batches(
    references: Iterable[Reference], size: int, window: int, seed: int, group_of: GroupOf
) -> Iterator[list[Reference]]:
    """What the window holds of a group comes in one batch, so that a multi-positive loss meets its positives.

    A group of more than half a batch is taken half a batch at a time: the others are its negatives.
    """
    rng = random.Random(seed)
    source = iter(references)
    members: dict[int, list[Reference]] = {}
    names: list[int] = []
    held = 0
    most = max(size // 2, 1)
    divided: set[int] = set()  # groups that have had their half of this batch

    def refill() -> None:
        nonlocal held
        # The window holds a batch at least, or it could not be filled.
        for reference in islice(source, max(window, size) - held):
            group = group_of(reference)
            if group not in members:
                members[group] = []
                names.append(group)
            members[group].append(reference)
            held += 1

    def fits(place: int, room: int) -> bool:
        return min(len(members[names[place]]), most) <= room

    def choose(room: int) -> int:
        start = rng.randrange(len(names))
        around = chain(range(start, len(names)), range(start))
        allowed = (place for place in around if names[place] not in divided)
        first = next(allowed, start)
        if fits(first, room):
            return first
        return next((place for place in allowed if fits(place, room)), first)  # none fits: one is divided

    def draw(room: int) -> list[Reference]:
        nonlocal held
        place = choose(room)
        group = names[place]
        taken = members[group][: min(room, most)]
        del members[group][: len(taken)]
        if members[group]:
            divided.add(group)
        else:
            del members[group]
            names[place] = names[-1]
            names.pop()
        held -= len(taken)
        return taken

    refill()
    while held >= size:
        batch: list[Reference] = []
        divided.clear()
        while len(batch) < size:
            batch += draw(size - len(batch))
            refill()
        rng.shuffle(batch)
        yield batch


def apart_batches(
    references: Iterable[Reference], size: int, window: int, seed: int, group_of: GroupOf
) -> Iterator[list[Reference]]:
    """No two of a group in one batch while the window holds another, so that negatives are negatives."""
    rng = random.Random(seed)
    source = iter(references)
    held: list[tuple[int, Reference]] = []
    counts: Counter[int] = Counter()
    used: set[int] = set()
    most = 0  # no group in the window has more; a bound that saves counting them for each batch

    def refill() -> None:
        nonlocal most
        for reference in islice(source, max(window, size) - len(held)):
            held.append((group_of(reference), reference))
            counts[held[-1][0]] += 1
            most = max(most, counts[held[-1][0]])

    def take(place: int) -> Reference:
        group, reference = held[place]
        held[place] = held[-1]
        held.pop()
        used.add(group)
        counts[group] -= 1
        if not counts[group]:
            del counts[group]
        return reference

    def urgent() -> list[Reference]:
        """One of each group that needs a place in every whole batch that the window still makes.

        Taking these first is enough for a division without a repeated group, where there is one.
        """
        nonlocal most
        batches = len(held) // size
        if most < batches:
            return []
        most = max(counts.values())
        pressing = {group for group, count in counts.items() if count >= batches}
        if not pressing:
            return []
        places: dict[int, int] = {}
        for place in rng.sample(range(len(held)), len(held)):
            if held[place][0] in pressing:
                places.setdefault(held[place][0], place)
        # From the back, because taking one moves the last into its place.
        return [take(place) for place in sorted(islice(places.values(), size), reverse=True)]

    def draw() -> Reference:
        for _ in range(8):
            place = rng.randrange(len(held))
            if held[place][0] not in used:
                return take(place)
        start = rng.randrange(len(held))
        places = ((start + step) % len(held) for step in range(len(held)))
        return take(next((place for place in places if held[place][0] not in used), start))

    refill()
    while len(held) >= size:
        used.clear()
        batch = urgent()
        while len(batch) < size:
            refill()
            batch.append(draw())
        refill()
        rng.shuffle(batch)
        yield batch


BATCHES: dict[str, Callable[..., Iterator[list[Reference]]]] = {
    "any": any_batches,
    "together": together_batches,
    "apart": apart_batches,
}
