"""Whatever a dump or a picture holds: no crash, no hang, and every row and picture is accounted for.

The whole of it, 10,000 posts and 2,000 pictures: python -m pytest -m slow tests/curate/test_fuzz.py
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pathclip.curate.curate import curate
from pathclip.errors import DataError
from pathclip.launch import compose
from pathclip.sources import read_posts
from pathclip.types import Post

from .feed import jpeg, tissue, tweet

SIZES = [
    (400, 150),
    pytest.param(10_000, 2_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
]

text = st.text(st.characters(exclude_categories=[]), max_size=40)  # lone surrogates and controls included
scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    text,
    st.sampled_from(["", "1", "../../etc/passwd", "\0", "#BreastPath", "RT @x: ", "<b>" * 50, "a" * 5000]),
)
junk = st.recursive(
    scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)
FIELDS = (
    *("id", "text", "author_id", "created_at", "attachments", "referenced_tweets", "entities", "lang"),
    *("public_metrics", "possibly_sensitive", "withheld", "edit_history_tweet_ids", "note_tweet"),
    *("conversation_id", "full_text", "id_str", "extended_entities", "retweeted_status", "delete"),
)


@st.composite
def lines(draw: Any) -> str:
    """One line of a dump: a sound post with some of its fields spoilt, or what is no post at all."""
    number = draw(st.integers(1, 10**6))
    post: Any = tweet(number, "A fine lipoma of the skin #BSTpath", f"3_{number}")
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=4)):
        post[name] = draw(junk)
    shape = draw(st.integers(0, 9))
    content: Any = post
    if shape in (1, 2, 3):
        content = {"data": draw(st.sampled_from([[post], post, [post, None, 3, []]])), "meta": draw(scalar)}
        content["includes"] = draw(st.one_of(junk, st.just({"media": [{"media_key": f"3_{number}"}]})))
    elif shape == 4:
        content = draw(junk)
    line = json.dumps(content)
    if shape == 5:
        line = line[: draw(st.integers(0, len(line)))]
    elif shape == 6:  # duplicate keys
        line = f'{{"id": {json.dumps(draw(scalar))}, ' + line[1:]
    elif shape == 7 and draw(st.integers(0, 20)) == 0:
        line = "[" * 100_000
    return line.replace("\n", " ").replace("\r", " ")


def dump_of(count: int) -> list[bytes]:
    found: list[bytes] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(lines())
    def collect(line: str) -> None:
        found.append(line.encode("utf-8", "surrogatepass"))

    collect()
    return found


def picture(rng: random.Random, number: int) -> bytes:
    """A picture that is spoilt in one of many ways, or odd and sound."""
    image = tissue(number % 50, 120)
    kind = number % len(KINDS)
    return KINDS[kind](image, rng)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def cut_off(image: Image.Image, rng: random.Random) -> bytes:
    content = encoded(image, rng.choice(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]))
    return content[: rng.randrange(len(content))]


def spoilt(image: Image.Image, rng: random.Random) -> bytes:
    content = bytearray(encoded(image, rng.choice(["JPEG", "PNG", "GIF", "WEBP", "TIFF"])))
    for _ in range(rng.randrange(1, 30)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def wrong_header(image: Image.Image, rng: random.Random) -> bytes:
    return rng.choice(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"RIFF1234WEBP"]
    ) + rng.randbytes(200)


def bomb(image: Image.Image, rng: random.Random) -> bytes:
    """A PNG that says it is 60,000 pixels wide and high."""
    content = bytearray(encoded(image, "PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


def animated(image: Image.Image, rng: random.Random) -> bytes:
    frames = [image.rotate(angle) for angle in (10, 20)]
    return encoded(image, rng.choice(["GIF", "WEBP"]), save_all=True, append_images=frames)


def turned(image: Image.Image, rng: random.Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = rng.choice([0, 1, 3, 5, 6, 8, 9, 99])
    return encoded(image, "JPEG", exif=exif)


def deep(image: Image.Image, rng: random.Random) -> bytes:
    return encoded(
        Image.fromarray(np.asarray(image.convert("L"), np.uint16) << 8), rng.choice(["PNG", "TIFF"])
    )


KINDS: list[Callable[[Image.Image, random.Random], bytes]] = [
    cut_off,
    spoilt,
    wrong_header,
    bomb,
    animated,
    turned,
    deep,
    lambda image, rng: encoded(image.convert("CMYK"), rng.choice(["JPEG", "TIFF"])),
    lambda image, rng: encoded(image.convert("P"), rng.choice(["PNG", "GIF"])),
    lambda image, rng: encoded(image.convert(rng.choice(["1", "L", "LA", "RGBA"])), "PNG"),
    lambda image, rng: b"",
    lambda image, rng: rng.randbytes(rng.randrange(1, 400)),
    lambda image, rng: encoded(image.resize((rng.randrange(1, 4), rng.randrange(1, 3000))), "PNG"),
    lambda image, rng: jpeg(image, rng.randrange(1, 96)),
]


@pytest.mark.parametrize(("posts", "pictures"), SIZES)
def test_every_fuzzed_row_and_picture_is_accounted_for(tmp_path: Path, posts: int, pictures: int) -> None:
    (tmp_path / "images").mkdir()
    rng = random.Random(0)
    dump = dump_of(posts)
    for number in range(pictures):
        (tmp_path / "images" / f"7_{number}.jpg").write_bytes(picture(rng, number))
        post = tweet(10**9 + number, f"Leiomyoma of case {number} #BSTpath", f"7_{number}")
        dump.append(json.dumps(post).encode())
    (tmp_path / "posts.jsonl").write_bytes(b"\n".join(dump) + b"\n")
    named = [f"source.posts={tmp_path / 'posts.jsonl'}", f"source.images={tmp_path / 'images'}"]
    result = curate(compose("curate", ["source=twitter", *named, f"out={tmp_path / 'out'}", "rules=none"]))

    parts = result.funnel["posts"], result.funnel["pairs"]
    for part in parts:
        assert part["read"] == part["kept"] + sum(step["dropped"] for step in part["steps"])
    assert parts[1]["kept"] == sum(result.pairs.values()) > 0
    # No row of the dump is lost on the way from the reader to the funnel …
    (file,) = result.funnel["files"]
    assert parts[0]["read"] == file["found"] + file["malformed"]
    assert result.funnel["notices"] == {} or sum(result.funnel["notices"].values()) == file["other"]
    # … and every picture of the second half is a pair or fell for a reason.
    fell = {row.post for row in result.dropped}
    kept = {row["post"] for row in _metas(result.out)}
    assert {str(10**9 + number) for number in range(pictures)} <= fell | kept


def _metas(out: Path) -> list[dict[str, Any]]:
    from pathclip.shards.reader import read_samples

    return [dict(s.meta) for name in ("train", "val", "test") for s in read_samples(out / name)]


def test_every_fuzzed_line_gives_at_least_one_row(tmp_path: Path) -> None:
    for number, line in enumerate(dump_of(200)):
        if line.strip():
            file = tmp_path / f"{number}.jsonl"
            file.write_bytes(line)
            try:
                rows = list(read_posts("twitter", file))
            except DataError as error:
                pytest.fail(f"{line[:200]!r}: {error}")
            assert rows, line[:200]
            assert all(post.id.isdigit() for post in rows if isinstance(post, Post))
