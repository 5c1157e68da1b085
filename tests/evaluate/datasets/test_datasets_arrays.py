"""Sets that ship as arrays."""

from __future__ import annotations

import gzip
import tracemalloc

import h5py
import numpy as np
import pytest

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.datasets.pannuke_arrays import malignancy, nuclei
from pathclip.runtime.images import open_image
from tests.evaluate import public_sets


@pytest.fixture
def pannuke(tmp_path):
    return public_sets.pannuke(tmp_path)


@pytest.fixture
def pcam(tmp_path):
    return public_sets.pcam(tmp_path)


@pytest.mark.parametrize(
    ("neoplastic", "other", "label"), [*public_sets.PANNUKE, (10, 22, "malignant"), (10, 23, None)]
)
def test_the_rule_of_plip_counts_nuclei_and_their_share(neoplastic, other, label):
    # 10 of 10 + 22 + 1 for the background are 30.3 %; 10 of 34 are 29.4 %.
    assert malignancy(public_sets.mask(neoplastic, other)) == label


def test_a_picture_without_any_nucleus_is_not_benign():
    assert malignancy(public_sets.mask(0, 0)) is None


def test_numbers_of_nuclei_are_taken_in_8_bits_as_by_plip():
    mask = np.zeros((2, 2, 6))
    mask[0, :, 0] = [1, 257]
    assert nuclei(mask)[0] == 1


def test_pannuke_is_tested_on_a_fold_and_learnt_from_the_others(pannuke):
    data = datasets.pannuke(str(pannuke))
    assert data.test.labels == ("malignant", "benign", "malignant") and len(data.train) == 6
    assert data.test.paths[1].endswith("fold 3, picture 1") and data.validation is None
    pixels = np.asarray(open_image(next(data.test.contents([1]))))
    images = np.load(pannuke / "Fold 3" / "images" / "fold3" / "images.npy")
    assert np.array_equal(pixels, images[1].astype(np.uint8))


def test_the_bytes_of_an_array_are_the_same_every_time(pannuke):
    first, second = (datasets.pannuke(str(pannuke)).test for _ in range(2))
    assert list(first.contents([0, 2])) == list(second.contents([0, 2]))
    assert list(first.first(2).contents([1])) == list(second.contents([1]))


def test_a_fold_of_pannuke_can_be_for_validation(pannuke):
    data = datasets.pannuke(str(pannuke), test=[1], train=[2], validation=[3])
    assert (len(data.test), len(data.train), len(data.validation)) == (3, 3, 3)
    with pytest.raises(DataError, match=r"each fold once, and one to test on; here \[1, 1, 3\]"):
        datasets.pannuke(str(pannuke), test=[1], train=[1, 3])


def test_pannuke_keeps_the_tissues_asked_for(tmp_path):
    root = public_sets.pannuke(tmp_path, repeats=3)
    data = datasets.pannuke(str(root), tissues=["Adrenal_gland"])
    assert len(data.test) == 3 and data.test.paths[0].endswith("picture 12")
    with pytest.raises(DataError, match="no picture of tissue 'brain' among adrenal gland, bile-duct"):
        datasets.pannuke(str(root), tissues=["Brain"])


def test_the_split_of_plip_is_that_of_its_code(tmp_path):
    root = public_sets.pannuke(tmp_path, repeats=4, types=("Breast", "Bile-duct"))
    data = datasets.pannuke(str(root), split="plip")
    # What pandas 3.1 draws by PLIP's two calls of `sample(frac=1, random_state=1)`, of all and of each class.
    expected = {1: (5, 7, 13, 17, 18, 23), 2: (5, 6, 11, 12), 3: (1, 19)}
    assert [path.partition(": ")[2] for path in data.test.paths] == [
        f"fold {fold}, picture {number}" for fold, numbers in expected.items() for number in numbers
    ]
    assert len(data.train) == 24


def test_other_ways_to_unpack_pannuke_are_found(pannuke):
    (pannuke / "fold_3").mkdir()
    (pannuke / "Fold 3").rename(pannuke / "fold_3" / "Fold 3")
    assert len(datasets.pannuke(str(pannuke)).test) == 3


@pytest.mark.parametrize(
    ("name", "values", "arguments", "message"),
    [
        (
            "masks",
            np.zeros((6, 32, 32, 5)),
            {},
            r"masks\.npy: shape \(6, 32, 32, 5\) of float64, not",
        ),
        ("masks", np.zeros((5, 32, 32, 6)), {}, r"masks\.npy: shape \(5, 32, 32, 6\), but the pictures have"),
        ("images", np.array([{"a": 1}]), {}, r"images\.npy: not an array of numbers"),
        ("types", np.array(["Breast"] * 5), {"tissues": ["Breast"]}, r"types\.npy: not 6 names of tissues"),
        (
            "types",
            np.array(["Breast"] * 6, object),
            {"tissues": ["Breast"]},
            r"types\.npy: no array of text; one of Python objects is refused, because",
        ),
    ],
)
def test_a_wrong_array_of_pannuke_is_named(pannuke, name, values, arguments, message):
    below = "masks" if name == "masks" else "images"
    np.save(pannuke / "Fold 1" / below / "fold1" / f"{name}.npy", values)
    with pytest.raises(DataError, match=message):
        datasets.pannuke(str(pannuke), **arguments)


def test_tissues_as_python_objects_do_not_matter_where_no_tissue_is_asked_for(pannuke):
    np.save(pannuke / "Fold 3" / "images" / "fold3" / "types.npy", np.array(["Breast"] * 6, object))
    assert len(datasets.pannuke(str(pannuke)).test) == 3


def test_a_missing_fold_of_pannuke_is_named(pannuke):
    (pannuke / "Fold 2" / "masks" / "fold2" / "masks.npy").unlink()
    with pytest.raises(DataError, match=r"fold2/masks\.npy: no such file\. PanNuke is expected as Fold 1"):
        datasets.pannuke(str(pannuke))


def test_pcam_has_its_three_parts_and_slides(pcam):
    data = datasets.pcam(str(pcam))
    assert [len(part) for part in (data.test, data.train, data.validation)] == [8, 8, 8]
    assert data.test.labels[:2] == ("normal", "tumor")
    assert data.test.groups[:3] == ("camelyon16_test_000", "camelyon16_test_000", "camelyon16_test_001")
    assert data.validation.groups[0] == "camelyon16_valid_000"


def test_pictures_of_pcam_are_those_of_the_file_in_any_ascending_choice(pcam):
    data = datasets.pcam(str(pcam), train=False, validation=False)
    with h5py.File(pcam / "camelyonpatch_level_2_split_test_x.h5") as file:
        expected = file["x"][:]
    found = [np.asarray(open_image(content)) for content in data.test.contents([0, 1, 2, 5, 7])]
    assert np.array_equal(np.stack(found), expected[[0, 1, 2, 5, 7]])
    assert data.train is None and data.validation is None


def test_pcam_learns_from_evenly_spaced_pictures(pcam):
    train = datasets.pcam(str(pcam), train_pictures=3).train
    assert [path.rpartition(" ")[2] for path in train.paths] == ["0", "3", "7"]
    with h5py.File(pcam / "camelyonpatch_level_2_split_train_x.h5") as file:
        assert np.array_equal(np.asarray(open_image(next(train.contents([1])))), file["x"][3])


def test_pcam_without_its_tables_has_no_groups(tmp_path):
    assert not any(datasets.pcam(str(public_sets.pcam(tmp_path, meta=False))).test.groups)


def test_a_packed_file_of_pcam_is_recognised(pcam):
    file = pcam / "camelyonpatch_level_2_split_valid_x.h5"
    with gzip.open(f"{file}.gz", "wb") as stream:
        stream.write(file.read_bytes())
    file.unlink()
    with pytest.raises(DataError, match=r"valid_x\.h5: no such file, but packed beside it; unpack"):
        datasets.pcam(str(pcam))


def write(file, key, values):
    with h5py.File(file, "w") as archive:
        archive.create_dataset(key, data=values)


@pytest.mark.parametrize(
    ("name", "key", "values", "message"),
    [
        ("x", "pictures", np.zeros((8, 96, 96, 3), np.uint8), "no dataset 'x' of whole numbers"),
        ("x", "x", np.zeros((8, 96, 96)), "no dataset 'x' of whole numbers"),
        ("x", "x", np.zeros((8, 96, 96), np.uint8), r"x has the shape \(8, 96, 96\), not \[n, 96, 96, 3\]"),
        (
            "x",
            "x",
            np.zeros((1, 512, 513, 3), np.uint8),
            r"x has the shape \(1, 512, 513, 3\), not \[n, 96, 96, 3\]",
        ),
        (
            "y",
            "y",
            np.zeros((7, 1, 1, 1), np.uint8),
            r"y has the shape \(7, 1, 1, 1\), but there are 8",
        ),
        ("y", "y", np.full((8, 1, 1, 1), 2, np.uint8), "label 2 is neither 0 nor 1"),
    ],
)
def test_a_wrong_file_of_pcam_is_named(pcam, name, key, values, message):
    write(pcam / f"camelyonpatch_level_2_split_test_{name}.h5", key, values)
    with pytest.raises(DataError, match=message):
        datasets.pcam(str(pcam))


@pytest.mark.parametrize("n", [600_000_000, 2**50])
def test_a_small_file_of_pcam_that_promises_billions_of_labels_is_refused_before_it_is_read(pcam, n):
    file = pcam / "camelyonpatch_level_2_split_test_y.h5"
    with h5py.File(file, "w") as archive:
        archive.create_dataset("y", shape=(n,), dtype="u8", chunks=(1 << 16,))
    assert file.stat().st_size < 10_000
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"y has the shape \({n},\), but there are 8 pictures"):
        datasets.pcam(str(pcam))
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()


def test_more_pictures_than_any_pcam_are_refused(pcam):
    for name, shape in (("x", (2**50, 96, 96, 3)), ("y", (2**50,))):
        with h5py.File(pcam / f"camelyonpatch_level_2_split_test_{name}.h5", "w") as archive:
            archive.create_dataset(name, shape=shape, dtype="u1", chunks=(1, *shape[1:]))
    with pytest.raises(DataError, match=r"1125899906842624 pictures, but at most 4000000 are read"):
        datasets.pcam(str(pcam))


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("values", [np.uint8(1), h5py.Empty("u1")])
def test_a_dataset_of_pcam_without_a_shape_is_refused(pcam, name, values):
    write(pcam / f"camelyonpatch_level_2_split_test_{name}.h5", name, values)
    with pytest.raises(DataError, match=rf"test_{name}\.h5: .*PCam is expected as"):
        datasets.pcam(str(pcam))


def test_a_file_of_pcam_that_points_to_another_is_refused(pcam, tmp_path):
    write(tmp_path / "other.h5", "x", np.zeros((8, 96, 96, 3), np.uint8))
    with h5py.File(pcam / "camelyonpatch_level_2_split_test_x.h5", "w") as archive:
        archive["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    with pytest.raises(DataError, match="no dataset 'x' of whole numbers"):
        datasets.pcam(str(pcam))


def test_what_is_no_hdf5_is_refused(pcam):
    (pcam / "camelyonpatch_level_2_split_test_x.h5").write_bytes(b"not")
    with pytest.raises(DataError, match=r"test_x\.h5: not an HDF5 file that can be read"):
        datasets.pcam(str(pcam))


def test_a_table_of_slides_must_fit(pcam):
    file = pcam / "camelyonpatch_level_2_split_test_meta.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"test_meta\.csv: 7 rows for 8 pictures"):
        datasets.pcam(str(pcam))
