"""Sets whose file names carry class and patient."""

from __future__ import annotations

import pytest

from pathclip.errors import DataError
from pathclip.evaluate import datasets
from tests.evaluate import public_sets


@pytest.fixture(scope="module")
def wsss4luad(tmp_path_factory):
    return public_sets.wsss4luad(tmp_path_factory.mktemp("wsss4luad"))


@pytest.fixture(scope="module")
def breakhis(tmp_path_factory):
    return public_sets.breakhis(tmp_path_factory.mktemp("breakhis"))


def test_wsss4luad_is_tumor_where_the_first_number_says_so(wsss4luad):
    data = datasets.wsss4luad(str(wsss4luad), test_fraction=None)
    assert all(
        (label == "tumor") == ("-[1, " in path)
        for path, label in zip(data.test.paths, data.test.labels, strict=True)
    )
    assert data.test.labels.count("tumor") == 24 and len(data.test) == 48


def test_wsss4luad_keeps_slides_whole(wsss4luad):
    data = datasets.wsss4luad(str(wsss4luad / "1.training"))
    assert data.train is not None and not {*data.test.groups} & {*data.train.groups}
    assert {*data.test.groups} <= {f"4362{number:02d}" for number in range(12)}


def test_wsss4luad_has_all_labels_of_a_patch(wsss4luad):
    data = datasets.wsss4luad_multi_label(str(wsss4luad))
    assert {*data.test.labels} == {
        frozenset({"tumor"}),
        frozenset({"stroma"}),
        frozenset({"normal"}),
        frozenset({"tumor", "stroma"}),
    }
    assert data.validation is not None and not {*data.test.groups} & {*data.validation.groups}
    assert len(data.test) + len(data.validation) == 48
    assert next(data.test.contents([0])).startswith(b"\x89PNG")


def test_the_first_multi_label_pictures_have_every_set_of_labels(wsss4luad):
    few = datasets.wsss4luad_multi_label(str(wsss4luad), None).test.first(4)
    assert len({*few.labels}) == len(few) == 4
    assert len([*few.contents([0, 3])]) == 2


def test_dots_and_low_lines_in_names_of_wsss4luad_are_read(tmp_path):
    public_sets.picture(tmp_path / "1.2.276.0.440737_38208_17984_[1_1_0].png")
    data = datasets.wsss4luad(str(tmp_path), test_fraction=None)
    assert (data.test.labels, data.test.groups) == (("tumor",), ("1.2.276.0.440737",))


@pytest.mark.parametrize("name", ["436219-1-2.png", "436219-1-2-[1, 0].png", "436219-1-2-[1, 0, 2].png"])
def test_a_name_without_three_labels_is_refused(tmp_path, name):
    public_sets.picture(tmp_path / name)
    with pytest.raises(DataError, match=r"does not end with three numbers.*as in 436219-7159-48057-\[1"):
        datasets.wsss4luad(str(tmp_path))


def test_breakhis_is_read_at_one_magnification(breakhis):
    data = datasets.breakhis(str(breakhis), 100, test_fraction=None)
    assert len(data.test) == 48 and all("/100X/" in path for path in data.test.paths)
    assert data.test.labels.count("benign") == 24


def test_breakhis_has_eight_types_of_patients_that_stay_together(breakhis):
    data = datasets.breakhis(str(breakhis / "BreaKHis_v1"), classes="type")
    both = {*data.test.labels, *data.train.labels}
    assert both == {kind for kinds in public_sets.BREAKHIS.values() for kind in kinds}
    assert not {*data.test.groups} & {*data.train.groups}


def test_letters_after_a_patient_of_breakhis_are_dropped(tmp_path):
    public_sets.breakhis(tmp_path, patients=1)
    folder = tmp_path / "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis"
    for block in ("22549AB", "22549CD", "22549G"):
        public_sets.picture(folder / f"SOB_B_A-14-{block}" / "200X" / f"SOB_B_A-14-{block}-200-001.png")
    data = datasets.breakhis(str(tmp_path), test_fraction=None)
    assert data.test.groups.count("14-22549") == 3


def test_breakhis_refuses_what_it_cannot_place(tmp_path):
    public_sets.breakhis(tmp_path, patients=1)
    with pytest.raises(DataError, match=r"magnification 250 is none of \(40, 100, 200, 400\)"):
        datasets.breakhis(str(tmp_path), 250)
    slide = tmp_path / "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A-14-1"
    public_sets.picture(slide / "200X" / "SOB_M_DC-14-1-200-001.png")
    with pytest.raises(DataError, match=r"its name does not fit its folder benign/SOB/adenosis"):
        datasets.breakhis(str(tmp_path))
    (slide / "200X" / "SOB_M_DC-14-1-200-001.png").rename(slide / "200X" / "photo.png")
    with pytest.raises(DataError, match=r"photo\.png: a name of another form\. BreakHis is expected as"):
        datasets.breakhis(str(tmp_path))


def test_a_folder_without_the_set_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"none of the expected files.*BreakHis is expected as histology"):
        datasets.breakhis(str(tmp_path))
