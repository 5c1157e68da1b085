"""Shards in object stores: S3 by a local server, other stores by file systems that fsspec brings."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer

from pathclip.errors import DataError
from pathclip.shards import storage
from pathclip.shards.order import find_sources
from pathclip.shards.reader import data_hash, read_manifest, read_samples, shard_sizes
from pathclip.shards.samples import SampleReader, index_shard
from pathclip.shards.stream import Position, ShardStream, StreamLoader
from tests import tiny_shards
from tests.shards.test_datamodule import batches, module


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(server, monkeypatch):
    """Settings of S3 where everybody's tools look for them, and nowhere else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0))
    fsspec.filesystem("s3").clear_instance_cache()
    yield boto3.client("s3")
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def local(tmp_path):
    tiny_shards.write(tmp_path / "train", n=40, per_shard=12)
    return tmp_path / "train"


@pytest.fixture
def bucket(store, local):
    """The address of the same shards in a bucket."""
    store.create_bucket(Bucket="pairs")
    for file in local.iterdir():
        store.upload_file(str(file), "pairs", f"shards/train/{file.name}")
    yield "s3://pairs/shards/train"
    for entry in store.list_objects_v2(Bucket="pairs").get("Contents", []):
        store.delete_object(Bucket="pairs", Key=entry["Key"])
    store.delete_bucket(Bucket="pairs")


def keys(samples, *_):
    return [sample["__key__"] for sample in samples]


def pictures(samples, *_):
    return [(sample["__key__"], sample["jpg"]) for sample in samples]


def epoch(folder, workers=0, collate=pictures, **options):
    loader = StreamLoader(ShardStream(folder, 4, collate, **options), lambda: Position(), workers)
    return [[tuple(sample) for sample in batch] for batch in loader]


def test_a_bucket_holds_what_the_folder_holds(bucket, local):
    assert shard_sizes(bucket) == shard_sizes(local)
    assert data_hash(bucket) == data_hash(f"{bucket}/") == data_hash(local) == read_manifest(bucket).hash
    assert list(read_samples(bucket)) == list(read_samples(local))


@pytest.mark.parametrize("groups", ["any", "apart"])
def test_a_stream_from_a_bucket_is_that_from_the_folder(bucket, local, groups):
    assert epoch(bucket, groups=groups) == epoch(local, groups=groups)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_read_from_a_bucket_that_this_process_has_read_from(bucket, local, workers):
    """A connection does not survive a fork: each worker opens its own."""
    before = epoch(bucket)
    assert epoch(bucket, workers) == before == epoch(local)


def test_training_batches_come_from_a_bucket_with_a_worker(bucket, local):
    remote = module(bucket, val=bucket, workers=1)
    here = module(local, val=str(local))
    for a, b in zip(batches(remote), batches(here), strict=True):
        assert a.pixels.equal(b.pixels) and a.texts == b.texts
    assert sum(map(len, remote.val_dataloader())) == 40
    assert remote.describe()["shards"] == [bucket] and remote.describe()["val"] == bucket
    assert remote.describe()["data_hash"] == here.describe()["data_hash"]
    here.load_state_dict(remote.state_dict())  # the same data in another place


def test_a_bucket_and_a_folder_are_mixed(bucket, local):
    sources = find_sources({bucket: 1, str(local): 0.5})
    assert [(s.folder, s.samples_per_epoch) for s in sources] == [(bucket, 40), (str(local), 20)]
    assert sum(map(len, epoch({bucket: 1, str(local): 0.5}))) == 60


def test_a_folder_without_sizes_is_one_line(bucket, store):
    store.delete_object(Bucket="pairs", Key="shards/train/sizes.json")
    with pytest.raises(DataError, match=r"s3://pairs/shards/train: no sizes\.json in it"):
        shard_sizes(bucket)


def test_the_parent_of_the_shards_gets_a_hint(bucket):
    with pytest.raises(DataError, match=r"s3://pairs/shards: no sizes\.json.*mean s3://pairs/shards/train\?"):
        shard_sizes("s3://pairs/shards")


def test_a_shard_that_is_listed_but_missing_is_named(bucket, store):
    store.delete_object(Bucket="pairs", Key="shards/train/000001.tar")
    with pytest.raises(DataError, match=r"s3://pairs/shards/train/000001\.tar: listed .* but missing"):
        shard_sizes(bucket)


def test_a_shard_that_goes_while_training_is_one_line(bucket, store):
    stream = ShardStream(bucket, 4, keys)
    store.delete_object(Bucket="pairs", Key="shards/train/000001.tar")
    with pytest.raises(DataError, match=r"000001\.tar: not there") as error:
        list(StreamLoader(stream, lambda: Position(), 1))
    assert "\n" not in str(error.value)


def test_a_bucket_that_does_not_exist_is_one_line(store):
    with pytest.raises(DataError, match=r"s3://nobody/train: not there \(.*bucket") as error:
        shard_sizes("s3://nobody/train")
    assert "\n" not in str(error.value)


def test_missing_credentials_are_one_line_with_where_they_belong(store, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no access \(.*credentials.*AWS_ACCESS_KEY_ID.*~/\.aws"):
        shard_sizes("s3://pairs/shards/train")


def test_a_server_that_does_not_answer_is_one_line(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    with pytest.raises(DataError, match="no connection after 3 tries"):
        shard_sizes("s3://pairs/shards/train")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("oss://bucket/train", r"oss:// needs a package: pip install ossfs"),
        ("pipe://cat/x", "'pipe' is no object store"),
        ("simplecache::s3://bucket/train", "no such folder"),
        ("s3://a::b://c", "no object store"),
    ],
)
def test_an_address_that_nothing_here_reads_is_one_line(address, message):
    with pytest.raises(DataError, match=message) as error:
        shard_sizes(address)
    assert "\n" not in str(error.value)


class Flaky(MemoryFileSystem):
    """Loses every so-manieth range that it is asked for: all of it, or its second half."""

    protocol = "flaky"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    every, asked, halves = 3, 0, False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        type(self).asked += 1
        content = super().cat_file(path, start, end, **options)
        if Flaky.asked % Flaky.every == 0:
            if not Flaky.halves:
                raise ConnectionResetError("peer has gone")
            return content[: len(content) // 2]
        return content


@pytest.fixture
def flaky(local, monkeypatch):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    system = fsspec.filesystem("flaky")
    for file in local.iterdir():
        system.pipe_file(f"/train/{file.name}", file.read_bytes())
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Flaky, "every", 3)
    yield "flaky://train"
    system.store.clear()


@pytest.mark.parametrize("halves", [False, True])
def test_a_connection_that_drops_now_and_then_changes_nothing(flaky, local, monkeypatch, halves):
    monkeypatch.setattr(Flaky, "halves", halves)
    assert epoch(flaky) == epoch(local)


def test_tries_are_bounded(flaky, monkeypatch):
    monkeypatch.setattr(Flaky, "every", 1)
    Flaky.asked = 0
    with pytest.raises(DataError, match=r"no connection after 4 tries \(peer has gone\).*ckpt=last"):
        shard_sizes(flaky)
    assert Flaky.asked == 4


def test_each_further_try_waits_longer():
    assert len(storage.WAITS) >= 4 and list(storage.WAITS) == sorted(storage.WAITS)


def test_only_the_lost_ranges_are_asked_for_again(flaky, monkeypatch):
    monkeypatch.setattr(Flaky, "every", 10)
    Flaky.asked = 0
    ranges = [("flaky://train/000000.tar", 512 * n, 512 * n + 512) for n in range(16)]
    assert b"".join(storage.read_ranges(ranges)) == Flaky().cat_file("/train/000000.tar")[: 16 * 512]
    assert Flaky.asked == 16 + 1 + 1


def test_a_scan_holds_a_bounded_part_of_a_shard(flaky, monkeypatch):
    longest = []
    plain = storage.read_ranges
    monkeypatch.setattr(Flaky, "every", 10**9)
    monkeypatch.setattr(storage, "SCAN_BYTES", 2048)
    monkeypatch.setattr(
        storage, "read_ranges", lambda r: longest.extend(end - start for _, start, end in r) or plain(r)
    )
    index = index_shard("flaky://train/000000.tar", 12, with_groups=True)
    assert len(index.starts) == 12 and len({*index.groups}) == 6 and max(longest) <= 2048


def test_samples_of_several_stores_keep_their_places(flaky, local, monkeypatch):
    monkeypatch.setattr(Flaky, "every", 10**9)
    shards = [f"{flaky}/000000.tar", str(local / "000001.tar")]
    reader = SampleReader(dict.fromkeys(shards, 12))
    chosen = [(shards[n % 2], n) for n in range(12)]
    expected = [f"s{n + 12 * (n % 2):04d}" for n in range(12)]
    assert [sample["__key__"] for sample in reader.read(chosen)] == expected


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("s3://bucket/train/", "s3://bucket/train/x"),
        ("s3://bucket", "s3://bucket/x"),
        ("shards/train/", "shards/train/x"),
        (Path("shards"), "shards/x"),
        ("/a//b", "/a/b/x"),
    ],
)
def test_a_file_of_a_folder_has_one_name(folder, name):
    assert storage.join(folder, "x") == name


def test_reading_shards_needs_neither_torch_nor_a_store():
    code = (
        "import sys, pathclip.shards.storage, pathclip.shards.reader, pathclip.shards.samples, "
        "pathclip.shards.groups, pathclip.shards.order\n"
        "print(*sorted({'torch', 'fsspec', 's3fs', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
