"""Sound records with parts replaced by anything that JSON can hold, and what must be true of what is read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pathclip.sources.distinct import decode, encode
from pathclip.types import Malformed, Notice, Post

DEEP: Any = "x"
for _ in range(300):
    DEEP = [DEEP]

odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(st.characters(codec=None), max_size=20),  # with lone surrogates and control characters
    st.sampled_from(
        ["", "../../etc/passwd", "a\0b", "x" * 100_000, "\ud800", "&#" + "9" * 5000, DEEP, 10**4000]
    ),
    st.lists(st.none() | st.integers() | st.text(max_size=3) | st.just({}), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=3), max_size=3),
)


def spoiled(sample: Any) -> st.SearchStrategy[Any]:
    """The sample with the value at one place replaced, taken away, or its key doubled in meaning."""
    places = list(_places(sample, ()))

    @st.composite
    def build(draw: Callable[..., Any]) -> Any:
        changed = copy.deepcopy(sample)
        for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
            holder = changed
            try:
                for key in place[:-1]:
                    holder = holder[key]
                if draw(st.booleans()) and isinstance(holder, dict):
                    del holder[place[-1]]
                else:
                    holder[place[-1]] = draw(odd_values)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took this place away
        return changed

    return build()


def _places(value: Any, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*at, key)
        yield from _places(child, (*at, key))


def check(read: Callable[[Path], Iterator[Any]], path: Path, record: Any) -> list[Any]:
    """Reads a file of the record between two blank lines; all of it must be accounted for and safe."""
    path.write_text(f"\n{json.dumps(record)}\n\n", "utf-8")
    items = list(read(path))
    assert items, "a line came to nothing"
    for item in items:
        if isinstance(item, Malformed | Notice):
            assert (item.file, item.line) == (path.name, 2)
        else:
            check_post(item)
    return items


def check_post(post: Post) -> None:
    """A post that any later part can write down."""
    assert decode(encode(post)) == post
    encode(post).encode()
    assert post.id and "\0" not in post.id
    assert post.created_at is None or post.created_at.tzinfo is UTC
    for one in post.media:
        assert one.key and not {"/", "\\", "\0"} & set(one.key) and not one.key.startswith(".")
        assert one.path is None or ".." not in one.path.split("/")
        assert one.url is None or one.url.startswith(("http://", "https://"))
