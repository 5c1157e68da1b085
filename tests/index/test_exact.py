from __future__ import annotations

import json

import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.index import VectorIndex, exact
from pathclip.index.exact import Entry, ExactIndex, open_index

MODEL = "a" * 64


def index_of(vectors: np.ndarray, **options) -> ExactIndex:
    entries = [Entry(f"p{i}", f"p{i}.png", "0" * 64) for i in range(len(vectors))]
    return ExactIndex(np.asarray(vectors, np.float32), entries, MODEL, "/pictures", **options)


def random_index(n: int = 50, dim: int = 6) -> ExactIndex:
    vectors = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    return index_of(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_the_nearest_come_first_with_their_cosine():
    index = index_of(np.array([[1, 0], [0, 1], [0.6, 0.8]]))
    hits = index.search(np.array([0.0, 1.0]), k=2)
    assert [(hit.rank, hit.id, hit.path) for hit in hits] == [
        (1, "p1", "/pictures/p1.png"),
        (2, "p2", "/pictures/p2.png"),
    ]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8])


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("k", [1, 3, 50, 99])
def test_blocks_of_any_size_give_the_full_sort(monkeypatch, block, k):
    monkeypatch.setattr(exact, "BLOCK", block)
    index = random_index()
    queries = random_index(4).vectors
    for query, hits in zip(queries, index.search_many(queries, k), strict=True):
        expected = np.argsort(-(index.vectors @ query), kind="stable")[:k]
        assert [hit.id for hit in hits] == [f"p{i}" for i in expected]
        assert [hit.rank for hit in hits] == list(range(1, min(k, 50) + 1))


@pytest.mark.parametrize("block", [2, 1000])
def test_equals_come_in_the_order_of_the_index(monkeypatch, block):
    monkeypatch.setattr(exact, "BLOCK", block)
    index = index_of(np.tile([[1.0, 0.0], [0.0, 1.0]], (500, 1)))
    best = [hit.id for hit in index.search(np.array([[1.0, 0.0]]), 501)]
    assert best == [f"p{i}" for i in range(0, 1000, 2)] + ["p1"]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k):
    with pytest.raises(DataError, match="k must be at least 1"):
        random_index().search(np.ones(6), k)


def test_a_query_of_another_length_is_refused():
    with pytest.raises(DataError, match=r"shape \[1, 5\].* of 6"):
        random_index().search(np.ones(5), 1)


def test_a_query_by_another_model_is_refused():
    index = random_index()
    assert index.search(np.ones(6), 1, model_hash=MODEL)
    with pytest.raises(DataError, match=r"made by model .*aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        index.search(np.ones(6), 1, model_hash="b" * 64)


def test_what_was_written_is_read_again(tmp_path):
    written = random_index()
    written.write(tmp_path / "images.index")
    read = open_index(tmp_path / "images.index")
    assert isinstance(read, VectorIndex)
    assert isinstance(read.vectors, np.memmap)
    np.testing.assert_array_equal(read.vectors, written.vectors)
    assert (read.entries, read.model_hash, read.root) == (written.entries, MODEL, written.root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images.index"]


def test_an_earlier_index_is_replaced_but_another_folder_is_not(tmp_path):
    random_index(5).write(tmp_path / "a.index")
    random_index(7).write(tmp_path / "a.index")
    assert len(open_index(tmp_path / "a.index")) == 7
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").touch()
    with pytest.raises(DataError, match="photos: exists and is no index"):
        random_index().write(tmp_path / "photos")
    assert (tmp_path / "photos/holiday.jpg").exists()


def test_pickled_vectors_are_refused(tmp_path):
    random_index().write(tmp_path / "a.index")
    np.save(tmp_path / "a.index/vectors.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"vectors\.npy: damaged"):
        open_index(tmp_path / "a.index")


@pytest.mark.parametrize("name", ["vectors.npy", "entries.jsonl", "meta.json"])
@pytest.mark.parametrize("fault", ["missing", "empty", "half"])
def test_a_damaged_file_is_named(tmp_path, name, fault):
    random_index().write(tmp_path / "a.index")
    file = tmp_path / "a.index" / name
    content = file.read_bytes()
    file.unlink()
    if fault != "missing":
        file.write_bytes(content[: len(content) // 2] if fault == "half" else b"")
    with pytest.raises(DataError, match=r"a\.index"):
        open_index(tmp_path / "a.index")


def test_a_malformed_entry_is_named_with_its_line(tmp_path):
    random_index().write(tmp_path / "a.index")
    file = tmp_path / "a.index/entries.jsonl"
    lines = file.read_text().splitlines()
    lines[2] = '{"id": 3}'
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"entries\.jsonl, line 3"):
        open_index(tmp_path / "a.index")


def test_an_unknown_schema_is_refused(tmp_path):
    random_index().write(tmp_path / "a.index")
    file = tmp_path / "a.index/meta.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    with pytest.raises(DataError, match="schema_version 99"):
        open_index(tmp_path / "a.index")


def test_an_id_twice_and_a_wrong_count_are_refused():
    with pytest.raises(DataError, match="each id once"):
        ExactIndex(np.zeros((2, 3), np.float32), [Entry("a"), Entry("a")], MODEL)
    with pytest.raises(DataError, match="1 entries"):
        ExactIndex(np.zeros((2, 3), np.float32), [Entry("a")], MODEL)


@pytest.mark.parametrize(
    "name", ["a\u2028b.png", "a\x85b.png", "a\nb\rc.png", "färbung.png", "caf\udce9.png"]
)
def test_any_name_survives_writing_and_reading(tmp_path, name):
    entries = [Entry(name, name), Entry("plain.png", "plain.png")]
    ExactIndex(np.eye(2, dtype=np.float32), entries, MODEL).write(tmp_path / "a.index")
    assert list(open_index(tmp_path / "a.index").entries) == entries


def test_an_index_with_unescaped_names_is_still_read(tmp_path):
    random_index(2).write(tmp_path / "a.index")
    names = ["a\u2028b.png", "a\x85b.png"]
    lines = [json.dumps({"id": name, "path": name, "sha256": ""}, ensure_ascii=False) for name in names]
    (tmp_path / "a.index/entries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [entry.id for entry in open_index(tmp_path / "a.index").entries] == names
