"""Shards that the tests of training share; none of them writes there."""

import pytest

from tests import tiny_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """`train` and `val`."""
    folder = tmp_path_factory.mktemp("shards")
    tiny_shards.write(folder / "train", n=40)
    tiny_shards.write(folder / "val", n=24)
    return folder
