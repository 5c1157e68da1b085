"""Records of an exported Bluesky repository: a CAR file of DAG-CBOR blocks under a Merkle search tree.

Format: https://atproto.com/specs/repository. Pictures are not in it, only their content ids.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pathclip.errors import ConfigError
from pathclip.sources.dumps import read_bytes

# Blocks are decoded all at once, to several times their size. A repository of 100 000 records has some 50 MB.
MAX_CAR_BYTES = 256 * 1024 * 1024
_MAX_KEY_BYTES = 1024


def records(file: Path) -> Iterator[tuple[int, str, str, str, Mapping[str, Any] | str]]:
    """Yields (number, did, collection, key, record) in the order of the tree; a text says why there is none.

    Raises:
        ConfigError: the package that reads the blocks is missing.
        DataError: the file cannot be read at all.
    """
    libipld = _libipld(file)
    try:
        header, blocks = libipld.decode_car(read_bytes(file, MAX_CAR_BYTES))
        did, root = _commit(header, blocks)
    except (ValueError, RecursionError) as error:
        yield 1, "", "", "", f"no repository: {error or 'nested too deeply'}"
        return
    number = 0
    for number, (key, link) in enumerate(_entries(root, blocks), 1):
        if key is None:
            yield number, did, "", "", "a broken or missing node of the tree"
            continue
        collection, _, name = key.partition("/")
        record = blocks.get(link) if isinstance(link, bytes) else None
        wrong = f"the record {key!r:.200} is missing"
        yield number, did, collection, name, record if isinstance(record, dict) else wrong


def _libipld(file: Path) -> ModuleType:
    try:
        return importlib.import_module("libipld")
    except ModuleNotFoundError:
        raise ConfigError(f"{file} needs the package 'libipld': pip install libipld") from None


def _commit(header: Any, blocks: Mapping[bytes, Any]) -> tuple[str, Any]:
    roots = header.get("roots") if isinstance(header, dict) else None
    commit = (
        blocks.get(roots[0]) if isinstance(roots, list) and roots and isinstance(roots[0], bytes) else None
    )
    if not isinstance(commit, dict) or not isinstance(commit.get("did"), str):
        raise ValueError("there is no commit at its root")
    return commit["did"], commit.get("data")


def _entries(root: Any, blocks: Mapping[bytes, Any]) -> Iterator[tuple[str | None, Any]]:
    """Yields (key, link) in the order of the keys; a key of None stands for a node that cannot be read.

    A node is {l: left node, e: [{p: how much of the key before, k: rest of the key, v: record, t: node}]}.
    Without recursion, and each node once: a file can describe a tree of any depth, or a circle.
    """
    waiting: list[tuple[str | None, Any]] = [(None, root)]
    seen = set()
    while waiting:
        key, link = waiting.pop()
        if key is not None:
            yield key, link
            continue
        node = blocks.get(link) if isinstance(link, bytes) and link not in seen else None
        seen.add(link if isinstance(link, bytes) else b"")
        if not isinstance(node, dict) or not isinstance(node.get("e"), list):
            yield None, None
            continue
        found: list[tuple[str | None, Any]] = [(None, node["l"])] if node.get("l") is not None else []
        before = b""
        for entry in node["e"]:
            prefix, rest = (entry.get("p"), entry.get("k")) if isinstance(entry, dict) else (None, None)
            if type(prefix) is not int or not isinstance(rest, bytes) or not 0 <= prefix <= len(before):
                found.append((None, b""))
                break
            before = before[:prefix] + rest
            if len(before) > _MAX_KEY_BYTES:
                found.append((None, b""))
                break
            found.append((before.decode(errors="replace"), entry.get("v")))
            if entry.get("t") is not None:
                found.append((None, entry["t"]))
        waiting += reversed(found)
