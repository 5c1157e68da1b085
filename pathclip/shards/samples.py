"""Samples one by one: where each lies in its shard, and what is in it.

A shard is looked through once, header by header, stepping over the pictures. After that a sample is one read
of one range, so that a process touches the bytes of its own samples and of no others.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from pathclip.errors import DataError
from pathclip.shards import storage, tar
from pathclip.shards.order import Reference
from pathclip.shards.reader import IMAGE_SUFFIXES, MAX_MEMBER_BYTES
from pathclip.shards.writer import SIZES

# A sample as it lies in a shard: bytes by file ending, '__key__' and '__url__', as WebDataset names them.
Raw = dict[str, Any]

# As WebDataset divides a name: the key with its folders up to the first dot, then the ending.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")
_METADATA = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Where the samples of a shard lie: sample n is the bytes [starts[n], ends[n]).

    Attributes:
        starts: of the first header of each sample.
        ends: behind the last file of each sample.
        groups: `group_number` of each sample; empty where nobody asked.
    """

    starts: array[int]
    ends: array[int]
    groups: array[int]


@dataclass
class SampleReader:
    """Reads samples by reference, and remembers where they lie: 16 to 24 bytes a sample.

    Attributes:
        sizes: shard → samples of it that are used.
        with_groups: also read the group of each sample while looking through a shard.
    """

    sizes: Mapping[str, int]
    with_groups: bool = False
    _indices: dict[str, ShardIndex] = field(default_factory=dict)

    def read(self, references: Sequence[Reference]) -> list[Raw]:
        """The samples, in this order.

        Raises:
            DataError: a shard is malformed, cut off, or holds fewer samples than its folder says.
        """
        ranges = []
        for shard, number in references:
            index = self._index(shard)
            ranges.append((shard, index.starts[number], index.ends[number]))
        contents = storage.read_ranges(ranges)
        return [_sample(shard, content) for (shard, _), content in zip(references, contents, strict=True)]

    def group(self, reference: Reference) -> int:
        """The `group_number` of a sample; see `read` for errors."""
        return self._index(reference.shard).groups[reference.number]

    def _index(self, shard: str) -> ShardIndex:
        index = self._indices.get(shard)
        if index is None:
            index = self._indices[shard] = index_shard(shard, self.sizes[shard], self.with_groups)
        return index


def index_shard(shard: str, size: int, with_groups: bool = False) -> ShardIndex:
    """Looks through a shard for its first `size` samples.

    Args:
        shard: path or address of a tar.
        size: samples that it must hold; more are not looked at.
        with_groups: also read each sample's .json for its group.

    Raises:
        DataError: malformed, cut off, or fewer samples.
    """
    starts, ends, groups = array("q"), array("q"), array("q")
    key, meta = "", b""

    def end_sample() -> None:
        if starts and with_groups:
            groups.append(group_number(read_meta(shard, key, meta), key))

    with storage.open_for_scan(shard) as (file, length):
        for member, name, suffix in _files(shard, file, length):
            if name != key:
                end_sample()
                if len(starts) == size:
                    return ShardIndex(starts, ends, groups)
                key, meta = name, b""
                starts.append(member.start)
                ends.append(0)
            ends[-1] = member.end
            if with_groups and suffix == "json":
                file.seek(member.data)
                meta = file.read(member.size)
        end_sample()
    if len(starts) < size:
        raise DataError(
            f"{shard}: holds {len(starts)} samples, fewer than the {size} that {SIZES} beside it says; "
            f"write the shards again or correct {SIZES}"
        )
    return ShardIndex(starts, ends, groups)


def group_number(meta: Mapping[str, Any], key: str) -> int:
    """A 64-bit number of a sample's group; a sample without one is a group of its own."""
    return text_number(str(meta.get("group") or key))


def text_number(text: str) -> int:
    """A 64-bit number, equal for equal texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def image_of(sample: Raw) -> bytes:
    """The bytes of a sample's picture.

    Raises:
        DataError: it has none; names shard and sample.
    """
    for suffix in IMAGE_SUFFIXES:
        if suffix in sample:
            return bytes(sample[suffix])
    shard = sample.get("__url__", "shards")
    raise DataError(f"{shard}: sample '{sample['__key__']}': no image in it")


def _sample(shard: str, content: bytes) -> Raw:
    """The files of one range as WebDataset groups them; a range of a tar is a tar."""
    from webdataset import tariterators  # imports torch, which whoever only looks at shards need not have

    archive = [{"url": shard, "stream": io.BytesIO(content)}]
    try:
        files = tariterators.tar_file_expander(archive, handler=_raise)
        (sample,) = tariterators.group_by_keys(files, handler=_raise)
    except (tarfile.TarError, ValueError, OSError) as error:
        reason = str(error.args[0] if error.args else error).split(" @ <")[0]
        raise DataError(f"{shard}: not a readable sample ({reason}); write the shards again") from None
    return dict(sample)


def _raise(error: BaseException) -> bool:
    raise error


def _files(shard: str, file: IO[bytes], length: int) -> Iterator[tuple[tar.Member, str, str]]:
    """The files of a shard that belong to samples, with their key and ending."""
    try:
        for member in tar.members(file, length):
            name = _NAME.fullmatch(member.name)
            if name is None or _METADATA.match(member.name):
                continue
            if member.size > MAX_MEMBER_BYTES:
                raise DataError(f"{shard}: member '{member.name}' is larger than 256 MiB")
            yield member, name[1], name[2].lower()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable shard ({error}); write the shards again") from None


def read_meta(shard: str, key: str, content: bytes) -> dict[str, Any]:
    """A sample's .json; empty where it has none.

    Raises:
        DataError: no JSON object; names shard and sample.
    """
    try:
        meta = json.loads(content or b"{}")
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise DataError(f"{shard}: sample '{key}': its .json is no JSON object")
    return meta
