"""Divides the pairs of a ledger into splits, and checks that nothing leaks between them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pathclip.curate.dedup import DedupSettings
from pathclip.curate.embed import FILE, open_embeddings
from pathclip.curate.ledger import Ledger
from pathclip.curate.look import read_hashes
from pathclip.curate.near import Near, near_hashes
from pathclip.curate.near_embeddings import near_embeddings
from pathclip.curate.split import Member, SplitSettings, check_leaks, decide, split

_MEMBERS = "select number, row, id, grp, created_at, prescribed, sha256, hashes from paired order by number"


def divide(ledger: Ledger, settings: SplitSettings, dedup: DedupSettings) -> str:
    """Notes the split of every pair.

    Returns:
        What the pairs are divided by: 'time', 'hash' or 'source'.

    Raises:
        DataError: two splits share a group, a picture or a near-duplicate; or see `split`.
    """
    with ledger.stage("split") as todo:
        if todo:
            numbers, members, places = [], [], []
            (total,) = ledger.database.execute("select count(*) from pair").fetchone()
            hashes = np.empty((total, 8), np.uint64)
            for row, (number, place, *facts, digits) in enumerate(ledger.rows(_MEMBERS)):
                numbers.append(number)
                places.append(place)
                members.append(Member(*facts))
                hashes[row] = read_hashes(digits)
            splits = split(members, settings)

            def near(groups: NDArray[np.int64]) -> Iterator[Near]:
                if dedup.near_duplicates != "off":
                    yield near_hashes(hashes, dedup.max_distance, groups)
                    if dedup.model:
                        embeddings = open_embeddings(ledger.folder / FILE)[np.array(places, np.int64)]
                        yield near_embeddings(embeddings, dedup.min_cosine, groups)

            check_leaks(members, splits, near)
            ledger.write("update pair set split = ? where number = ?", zip(splits, numbers, strict=True))
            ledger.set("split by", decide(members, settings))
    return str(ledger.get("split by"))
