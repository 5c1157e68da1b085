"""A synthetic social-media feed of pathology whose truth is known, written as a real one is found on disk.

The feed is a Twitter API v2 dump (pages, one per line) and a folder of pictures; beside them lie the ids of
posts deleted since, and the truth: for every post and every picture, which curation rule should drop it.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathclip.atomic import staged_folder
from pathclip.errors import DataError
from pathclip.progress import track
from pathclip.runtime.cores import available_cores
from pathclip.runtime.processes import end_with_parent, interrupts_held
from pathclip.sources.synthetic_distractors import draw_distractor
from pathclip.sources.synthetic_pages import MALFORMED_LINES, POSTS_PER_PAGE, page
from pathclip.sources.synthetic_plan import (
    FEWEST_POSTS,
    IMAGE_REASONS,
    KEPT,
    NOISE,
    Picture,
    Plan,
    counts,
    plan_feed,
)
from pathclip.sources.synthetic_tiles import LABORATORIES, Tile, draw_tile

__all__ = ["FEWEST_POSTS", "IMAGE_REASONS", "KEPT", "NOISE", "Feed", "make_feed"]


@dataclass(frozen=True)
class Feed:
    """Where a feed lies and what it truly holds.

    Attributes:
        folder: the feed.
        posts: `posts.jsonl`, one page of the API per line.
        images: folder of `<media key>.jpg`.
        truth: `truth.jsonl`, one line per post, picture and malformed line: kind ('post', 'media' or 'line'),
            id (of a line: its 1-based number), post, reason, label, laboratory, split_group, duplicate_of.
            A post's reason is 'kept' where all rules on posts pass it, also if its picture is dropped; the
            picture's own reason is the post's, or one of `IMAGE_REASONS`, or 'kept'. An answer may be kept,
            as a pair with the picture of the post it answers, where that post falls for asking.
        tombstones: `tombstones.txt`, ids of posts that were deleted after the dump, one per line.
        counts: rows by true reason: lines for 'malformed', pictures for `IMAGE_REASONS`, posts for the
            others; 'kept' counts the pairs that a perfect curation keeps, those of replies included.
    """

    folder: Path
    posts: Path
    images: Path
    truth: Path
    tombstones: Path
    counts: dict[str, int]

    @classmethod
    def at(cls, folder: Path) -> Feed:
        """A feed that `make_feed` has written before.

        Raises:
            DataError: it is not there.
        """
        try:
            lines = (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise DataError(f"{folder}: no synthetic feed in this folder") from None
        return cls._of(folder, [json.loads(line) for line in lines])

    @classmethod
    def _of(cls, folder: Path, truth: Sequence[dict[str, Any]]) -> Feed:
        posts, images = folder / "posts.jsonl", folder / "images"
        return cls(folder, posts, images, folder / "truth.jsonl", folder / "tombstones.txt", _count(truth))


def make_feed(
    folder: Path, posts: int = 1500, seed: int = 0, size: int = 160, workers: int | None = None
) -> Feed:
    """Writes a feed; an earlier one in its place is replaced when the new one is whole.

    Equal `posts`, `seed` and `size` give equal bytes, whatever the number of workers.

    Args:
        folder: where to; new, empty, or an earlier feed.
        posts: posts in all, noise included, at least 60.
        seed: of everything random, at least 0.
        size: side of the tiles in pixels, a multiple of 8.
        workers: processes that draw; all cores where None, this process alone where 1.

    Raises:
        DataError: `folder` holds something that is no feed.
        ValueError: too few posts, or an impossible size.
    """
    folder = Path(folder)
    _check_folder(folder)
    plans = plan_feed(posts, seed, size)
    malformed = counts(posts)["malformed"]
    with staged_folder(folder) as staging:
        (staging / "images").mkdir()
        _draw_all([p for plan in plans for p in plan.pictures], staging / "images", size, workers)
        lines, broken = _dump(plans, malformed, seed, size)
        (staging / "posts.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8", newline="\n")
        deleted = [plan.id for plan in plans if plan.reason == "deleted"]
        (staging / "tombstones.txt").write_text("".join(f"{id_}\n" for id_ in deleted), "utf-8", newline="\n")
        truth = [*_truth(plans), *(_row("line", str(number), "", "malformed") for number in broken)]
        rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in truth)
        (staging / "truth.jsonl").write_text(rows, "utf-8", newline="\n")
    return Feed._of(folder, truth)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder / "truth.jsonl").is_file():
        if not folder.is_dir():
            raise DataError(f"{folder}: is a file; give a folder for the feed")
        if any(folder.iterdir()):
            raise DataError(f"{folder}: holds files that are no synthetic feed; give a new or empty folder")


def _dump(plans: Sequence[Plan], malformed: int, seed: int, size: int) -> tuple[list[str], list[int]]:
    """The lines of the dump, and the numbers of those that are malformed."""
    known = {plan.id: plan for plan in plans}
    rng = np.random.default_rng([seed, 3])
    lines = [
        json.dumps(page(plans[i : i + POSTS_PER_PAGE], known, size, token=rng.bytes(12).hex()))
        for i in range(0, len(plans), POSTS_PER_PAGE)
    ]
    bad = [MALFORMED_LINES[i % len(MALFORMED_LINES)] for i in range(malformed)]
    for line in bad:
        # Never the last line: a reader may take that for a download that is still going on.
        lines.insert(int(rng.integers(len(lines))), line)
    return lines, [number for number, line in enumerate(lines, 1) if line in MALFORMED_LINES]


def _truth(plans: Iterable[Plan]) -> Iterator[dict[str, Any]]:
    for plan in plans:
        on_post = "kept" if plan.reason in IMAGE_REASONS else plan.reason
        place = LABORATORIES[plan.pictures[0].laboratory].name if plan.pictures else None
        facts = {"label": plan.class_name or None, "split_group": plan.group}
        laboratory = place if plan.class_name else None
        yield _row(
            "post", plan.id, plan.id, on_post, laboratory=laboratory, duplicate_of=plan.copy_of, **facts
        )
        for picture in plan.pictures:
            copy = picture.copy_of
            yield _row(
                "media", picture.key, plan.id, plan.reason, laboratory=laboratory, duplicate_of=copy, **facts
            )


def _row(kind: str, id_: str, post: str, reason: str, **facts: str | None) -> dict[str, Any]:
    row = {"kind": kind, "id": id_, "post": post or None, "reason": reason}
    return {
        **row,
        **{name: facts.get(name) for name in ("label", "laboratory", "split_group", "duplicate_of")},
    }


def _count(truth: Sequence[dict[str, Any]]) -> dict[str, int]:
    with_media = {row["post"] for row in truth if row["kind"] == "media"}
    found = Counter(
        row["reason"]
        for row in truth
        if row["kind"] == "line"
        or (row["kind"] == "media" and row["reason"] in (*IMAGE_REASONS, "kept"))
        or (row["kind"] == "post" and (row["reason"] != "kept" or row["id"] not in with_media))
    )
    return {reason: found[reason] for reason in (*NOISE, "kept")}


def _draw_all(pictures: Sequence[Picture], folder: Path, size: int, workers: int | None) -> None:
    draw = partial(write_picture, folder=folder, size=size)
    workers = workers or available_cores()
    if workers == 1:
        for picture in track(pictures, "Drawing the feed"):
            draw(picture)
        return
    # Spawned, not forked: the caller may hold threads (torch), and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, end_with_parent, (os.getpid(),)) as pool:
        with interrupts_held():
            drawn = pool.map(draw, pictures, chunksize=16)
        for _ in track(drawn, "Drawing the feed", total=len(pictures)):
            pass


def write_picture(picture: Picture, folder: Path, size: int) -> None:
    """Draws one picture, changes it as planned and writes `<key>.jpg`; a missing one is not written."""
    if picture.change == "missing":
        return
    rng = np.random.default_rng(picture.entropy)
    if picture.kind == "tile":
        drawn = draw_tile(picture.class_name, rng, LABORATORIES[picture.laboratory], size)
    else:
        drawn = draw_distractor(picture.kind, rng, size)
    content = _changed(drawn, picture)
    (folder / f"{picture.key}.jpg").write_bytes(content)


def _changed(drawn: Tile, picture: Picture) -> bytes:
    change, amount = picture.change, picture.amount
    if change == "garbage":
        return b"<html>404 Not Found</html>" + bytes(drawn[:4].tobytes())
    if change == "reencoded":
        return _jpeg(Image.open(io.BytesIO(_jpeg(drawn))), amount)
    if change in ("small", "resized"):
        return _jpeg(Image.fromarray(drawn).resize((amount, amount), Image.Resampling.LANCZOS))
    if change == "rotated":
        return _jpeg(np.rot90(drawn, amount))
    if change == "flipped":
        return _jpeg(np.flip(drawn, amount))
    content = _jpeg(drawn)
    return content[: len(content) * 2 // 5] if change == "truncated" else content


def _jpeg(picture: Tile | Image.Image, quality: int = 85) -> bytes:
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.ascontiguousarray(picture))
    file = io.BytesIO()
    # Full-resolution colour: halving it would dull fine tissues more than coarse ones.
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()
