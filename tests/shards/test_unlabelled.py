"""Pictures without texts beside the pairs: which, in what order, and how they look."""

import shutil

import pytest
import torch

from pathclip.errors import ConfigError, DataError
from pathclip.shards.stream import Position
from pathclip.shards.transforms import Augment
from pathclip.shards.unlabelled import UnlabelledPictures
from pathclip.shards.writer import Sample, write_shards
from tests import tiny_shards
from tests.shards.test_datamodule import batches, module, on

RED = (200, 40, 40)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten files, three of them in a folder within."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "inner").mkdir()
    for number in range(10):
        name = f"inner/{number}.jpg" if number < 3 else f"{number}.jpeg"
        (folder / name).write_bytes(tiny_shards.jpeg(RED, 100 + number))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiny_shards.write(folder, n=16)
    return folder


def contents(row, numbers):
    return [picture.content for number in numbers for picture in row.read(number)]


def test_every_pass_shows_each_picture_once_in_another_order(pictures, shards):
    row = UnlabelledPictures([str(pictures), str(shards)], per_batch=13)
    first, second = contents(row, [0, 1]), contents(row, [2, 3])
    assert len(set(first)) == len(row) == 26 and set(first) == set(second) and first != second


def test_a_batch_may_reach_into_the_next_pass(pictures):
    whole = contents(UnlabelledPictures(str(pictures), 10), range(4))
    assert contents(UnlabelledPictures(str(pictures), 8), range(5)) == whole


def test_the_pictures_follow_from_the_number_of_the_batch_alone(pictures):
    row, other = UnlabelledPictures(str(pictures), 4, seed=3), UnlabelledPictures(str(pictures), 4, seed=3)
    for number in range(7):
        before = contents(row, [number])
    assert contents(other, [6]) == before
    assert contents(UnlabelledPictures(str(pictures), 4, seed=4), [6]) != before


def test_two_processes_share_what_one_would_have(pictures):
    row = UnlabelledPictures(str(pictures), per_batch=6)
    halves = [picture for rank in (0, 1) for picture in row.read(5, rank, 2)]
    assert halves == row.read(5)


def test_shards_are_asked_for_no_texts(tmp_path):
    write_shards(tmp_path, [Sample(f"k{i}", tiny_shards.jpeg(RED, i), "") for i in range(4)])
    assert len(set(contents(UnlabelledPictures(str(tmp_path), 4), [0]))) == 4


def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, pictures, shards):
    (tmp_path / "empty").mkdir()
    shutil.copytree(shards, tmp_path / "above" / "train")
    for folders, message in (
        (str(tmp_path / "nowhere"), "data.unlabelled: .*nowhere: no such folder"),
        (str(tmp_path / "empty"), "data.unlabelled: .*empty holds no pictures$"),
        ([str(pictures), f"{pictures}/"], "names .* twice"),
        ([], "names no folder"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            UnlabelledPictures(folders, 4)
    for file in (tmp_path / "above" / "train").glob("*.tar"):
        file.unlink()
    with pytest.raises(DataError, match=r"the shards lie in its folders, such as .*above/train"):
        UnlabelledPictures(str(tmp_path / "above"), 4)


def test_a_picture_that_went_away_is_named(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(tiny_shards.jpeg(RED, number))
    row = UnlabelledPictures(str(tmp_path), 2)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg: cannot be read"):
        row.read(0)


def test_batches_hold_them_and_the_pairs_stay_as_they_were(pictures, shards):
    augment = Augment()
    alone = batches(module(shards, augment=augment))
    beside = batches(module(shards, augment=augment, unlabelled=str(pictures), unlabelled_per_pair=1.5))
    for one, other in zip(alone, beside, strict=True):
        assert one.pixels.equal(other.pixels) and one.tokens.equal(other.tokens)
        assert one.unlabelled is None and other.unlabelled.shape == (6, 3, 32, 32)
    assert not beside[0].unlabelled.equal(beside[1].unlabelled)


@pytest.mark.parametrize("teacher_size", [None, (48, 48)])
def test_two_processes_show_what_one_would_have_shown(pictures, shards, teacher_size):
    data = module(shards, augment=Augment(), unlabelled=str(pictures), teacher_size=teacher_size)
    for name in ("unlabelled", "large"):
        whole, *halves = ([getattr(b, name) for b in batches(data, *how)] for how in ((1, 0), (2, 0), (2, 1)))
        if name == "large" and teacher_size is None:
            assert whole == [None] * 4
            continue
        n = 2 if name == "large" else 0  # pairs of a process, before those without texts
        for one, left, right in zip(whole, *halves, strict=True):
            joined = [left[:n], right[:n], left[n:], right[n:]]
            assert one.equal(torch.cat(joined)) and len(one) == len(left) + len(right)


def test_workers_and_a_restart_change_none_of_them(pictures, shards):
    every = batches(module(shards, augment=Augment(), unlabelled=str(pictures)))
    data = module(shards, augment=Augment(), unlabelled=str(pictures), workers=2)
    data.position = Position(0, 2)
    assert all(a.unlabelled.equal(b.unlabelled) for a, b in zip(every[2:], batches(data), strict=True))


def test_the_next_epoch_goes_on_where_the_last_one_ended(pictures, shards):
    data = module(shards, unlabelled=str(pictures), unlabelled_per_pair=0.5)  # 4 batches of 2 an epoch
    first = [batch.unlabelled for batch in batches(data)]
    data.position = Position(1, 0)
    seen = torch.cat([*first, batches(data)[0].unlabelled])
    assert len(seen.flatten(1).unique(dim=0)) == 10


@pytest.mark.parametrize("augment", [None, Augment()])
def test_a_teacher_of_larger_pictures_sees_them_in_its_own_size(pictures, shards, augment):
    batch = batches(module(shards, augment=augment, unlabelled=str(pictures), teacher_size=(64, 64)))[0]
    assert batch.large.shape == (8, 3, 64, 64) and batch.pixels.shape == (4, 3, 32, 32)
    for small, large in ((batch.pixels, batch.large[:4]), (batch.unlabelled, batch.large[4:])):
        shrunk = torch.nn.functional.interpolate(large, (32, 32), mode="bicubic", antialias=True)
        torch.testing.assert_close(small, shrunk.clamp(-1, 1))


@pytest.mark.parametrize("size", [(32, 32), (24, 24), (64, 48), None])
def test_a_teacher_of_pictures_no_larger_or_of_another_form_sees_those_of_the_student(shards, size):
    assert batches(module(shards, augment=Augment(), teacher_size=size))[0].large is None


def test_a_run_goes_on_with_the_pictures_it_began_with(tmp_path, pictures, shards):
    began = module(shards, unlabelled=str(pictures)).state_dict()
    module(shards, unlabelled=str(pictures)).load_state_dict(began)
    other = shutil.copytree(pictures, tmp_path / "other")
    (other / "3.jpeg").unlink()
    with pytest.raises(ConfigError, match=r"the hash of data\.unlabelled"):
        module(shards, unlabelled=str(other)).load_state_dict(began)
    with pytest.raises(ConfigError, match="beside a batch"):
        module(shards, unlabelled=str(pictures), unlabelled_per_pair=2.0).load_state_dict(began)
    plain = module(shards)
    before = {key: now for key, now in plain.state_dict()["order"].items() if "unlabelled" not in key}
    plain.load_state_dict({**plain.state_dict(), "order": before})  # of a version that did not know them


def test_too_few_beside_a_batch_are_refused(pictures, shards):
    with pytest.raises(ConfigError, match=r"unlabelled_per_pair=0\.1: .* two are the least"):
        module(shards, unlabelled=str(pictures), unlabelled_per_pair=0.1)
    data = on(module(shards, unlabelled=str(pictures), unlabelled_per_pair=0.75), 2)
    with pytest.raises(ConfigError, match="3 pictures beside a batch must divide by the 2 processes"):
        data.train_dataloader()
