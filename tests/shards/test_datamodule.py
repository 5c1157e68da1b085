import json
from types import SimpleNamespace

import pytest
import torch

from pathclip.config import build
from pathclip.errors import ConfigError, DataError
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.captions import Captions
from pathclip.shards.datamodule import PairsDataModule
from pathclip.shards.stream import Position
from pathclip.shards.transforms import Augment
from pathclip.shards.writer import Sample, write_shards
from tests import tiny_shards


def module(folder, **options):
    preprocess = Preprocess.from_card({"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3})
    tokenizer = Tokenizer(clip_tokenizer_json().encode(), 16, 0)
    train = folder if isinstance(folder, dict | list) else str(folder)
    return PairsDataModule(train, preprocess, tokenizer, **{"batch_size": 4, "workers": 0, **options})


def on(data, world=1, rank=0):
    """The data module as Lightning has it in one of `world` processes."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(world_size=world, global_rank=rank, strategy=strategy)
    data.trainer = trainer if world > 1 else None
    return data


def batches(data, world=1, rank=0):
    return list(on(data, world, rank).train_dataloader())


def test_a_batch_says_which_pairs_belong_together(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    for batch in batches(module(tmp_path)):
        same_group = batch.group[:, None] == batch.group[None]
        same_text = batch.caption[:, None] == batch.caption[None]
        assert same_group.equal(same_text)  # in these shards every group has a text of its own


def test_a_batch_says_how_many_columns_of_its_tokens_hold_more_than_padding(tmp_path):
    texts = ["naevus", "a naevus of the skin", "skin"]
    samples = tiny_shards.samples(3)
    write_shards(tmp_path, [Sample(s.key, s.image, text) for s, text in zip(samples, texts, strict=True)])
    (batch,) = batches(module(tmp_path, batch_size=3))
    assert batch.columns == (batch.tokens != 0).sum(1).max() < batch.tokens.shape[1]


def test_shards_made_elsewhere_need_neither_metadata_nor_manifest(tmp_path):
    write_shards(tmp_path, [Sample(f"k{i}", tiny_shards.jpeg((90, 90, 90), i), "grey") for i in range(8)])
    (tmp_path / "manifest.json").unlink()
    data = module(tmp_path)
    assert len({int(group) for batch in batches(data) for group in batch.group}) == 8
    assert data.describe()["data_hash"] == [None] and data.describe()["pairs"] == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_does_not_decode_is_one_line_with_its_name(tmp_path, workers):
    samples = tiny_shards.samples(8)
    samples[3] = Sample("broken", samples[3].image[:200], "a red square")
    write_shards(tmp_path, samples)
    with pytest.raises(DataError) as error:
        batches(module(tmp_path, workers=workers))
    assert "sample 'broken'" in str(error.value) and "\n" not in str(error.value)


def test_the_card_counts_the_pairs_that_were_used(tmp_path):
    tiny_shards.write(tmp_path, n=24)
    assert module(tmp_path, limit=8).describe()["pairs"] == 8


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 2}, r"data\.batch_size=2"),
        ({"seed": 1}, "seed=1"),
        ({"limit": 8}, "limit=8"),
        ({"shuffle_buffer": 5}, r"data\.shuffle_buffer=5"),
        ({"groups": "apart"}, r"data\.groups=apart"),
    ],
)
def test_a_run_does_not_go_on_in_another_order(tmp_path, options, named):
    tiny_shards.write(tmp_path, n=16)
    state = json.loads(json.dumps(module(tmp_path).state_dict()))
    with pytest.raises(ConfigError, match=named):
        module(tmp_path, **options).load_state_dict(state)


def test_a_run_does_not_go_on_with_other_pairs(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    state = module(tmp_path).state_dict()
    tiny_shards.write(tmp_path, n=20)
    with pytest.raises(ConfigError, match=r"data\.train"):
        module(tmp_path).load_state_dict(state)


def test_a_run_does_not_go_on_with_other_factors(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    state = module({str(tmp_path): 2}).state_dict()
    module({str(tmp_path): 2.0}).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"the factors of data\.train=\[1\.0\].*began with \[2\.0\]"):
        module(tmp_path).load_state_dict(state)


def test_a_run_does_not_go_on_from_a_checkpoint_of_another_order(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    with pytest.raises(ConfigError, match="earlier version"):
        module(tmp_path).load_state_dict({"epoch": 0, "batch": 1, "order": {}})


def test_a_run_does_not_go_on_with_another_number_of_processes(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    state = on(module(tmp_path), world=2).state_dict()
    with pytest.raises(ConfigError, match=r"began on 2 processes, now there is 1.*resume=epoch"):
        on(module(tmp_path)).load_state_dict(state)
    with pytest.raises(ConfigError, match="began on 1 process, now there are 4"):
        on(module(tmp_path), world=4).load_state_dict(on(module(tmp_path)).state_dict())


@pytest.mark.parametrize(
    ("reached", "goes_on"),
    [(Position(3, 2), Position(3, 0)), (Position(3, 0), Position(3, 0)), (Position(3, 4), Position(4, 0))],
)
def test_a_run_may_begin_its_epoch_again_with_another_number_of_processes(tmp_path, reached, goes_on):
    tiny_shards.write(tmp_path, n=16)
    first = on(module(tmp_path), world=2)
    first.position = reached
    second = on(module(tmp_path, resume="epoch"))
    second.load_state_dict(first.state_dict())
    assert second.position == goes_on


def test_a_run_goes_on_with_its_next_batch(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    first, second = (module(tmp_path, augment=Augment()) for _ in range(2))
    first.position = Position(1, 2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    whole = module(tmp_path, augment=Augment())
    whole.position = Position(1, 0)
    for there, here in zip(batches(whole)[2:], batches(second), strict=True):
        assert there.pixels.equal(here.pixels) and there.texts == here.texts


def test_two_processes_see_exactly_the_pixels_and_texts_of_one(tmp_path):
    """Losses of two processes can only equal those of one if their halves of a batch are those of one."""
    tiny_shards.write(tmp_path, n=24)
    options = {
        "augment": Augment(),
        "captions": Captions(["{text}", "H&E: {text}", "{text}?"]),
        "batch_size": 8,
    }
    alone = batches(module(tmp_path, **options))
    halves = [batches(module(tmp_path, **options), 2, rank) for rank in (0, 1)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert torch.cat([first.pixels, second.pixels]).equal(whole.pixels)
        assert torch.cat([first.tokens, second.tokens]).equal(whole.tokens)
        assert first.texts + second.texts == whole.texts
        assert torch.cat([first.group, second.group]).equal(whole.group)


def test_groups_together_meet_in_a_batch_and_groups_apart_do_not(tmp_path):
    tiny_shards.write(tmp_path, n=32)  # every two neighbours are a group

    def groups(way):
        return [len({*batch.group.tolist()}) for batch in batches(module(tmp_path, batch_size=8, groups=way))]

    assert groups("together") == [4] * 4 and groups("apart") == [8] * 4


def test_captions_change_what_is_trained_on_but_not_what_is_validated(tmp_path):
    tiny_shards.write(tmp_path, n=8)
    plain = module(tmp_path, val=str(tmp_path))
    put = module(tmp_path, val=str(tmp_path), captions=Captions(["H&E: {text}"]))
    for before, after in zip(batches(plain), batches(put), strict=True):
        assert after.texts == [f"H&E: {text}" for text in before.texts]
        assert not after.tokens.equal(before.tokens)
        assert after.caption.equal(before.caption)  # ids of the texts as they stand in the shards
    for before, after in zip(plain.val_dataloader(), put.val_dataloader(), strict=True):
        assert after.texts == before.texts and after.tokens.equal(before.tokens)


def test_captions_do_not_change_how_pictures_are_augmented(tmp_path):
    tiny_shards.write(tmp_path, n=8)
    plain = batches(module(tmp_path, augment=Augment()))
    put = batches(module(tmp_path, augment=Augment(), captions=Captions(["{text}", "x {text}"])))
    assert all(a.pixels.equal(b.pixels) for a, b in zip(plain, put, strict=True))


def test_the_record_names_every_source_and_the_validation_data(tmp_path):
    a = tiny_shards.write(tmp_path / "a", n=16)
    b = tiny_shards.write(tmp_path / "b", n=8)
    val = tiny_shards.write(tmp_path / "val", n=4)
    data = module({str(tmp_path / "a"): 1, f"{tmp_path / 'b'}/": 2.5}, val=f"{tmp_path / 'val'}/")
    assert data.describe() == {
        "shards": [str(tmp_path / "a"), str(tmp_path / "b")],
        "factors": [1.0, 2.5],
        "pairs": 24,
        "pairs_per_epoch": 36,
        "data_hash": [a.hash, b.hash],
        "val": str(tmp_path / "val"),
        "val_hash": val.hash,
    }
    json.dumps(data.describe())


def test_validation_shows_every_pair_once_in_the_order_of_the_shards(tmp_path):
    tiny_shards.write(tmp_path, n=10, per_shard=3)
    shown = [text for b in module(tmp_path, val=str(tmp_path)).val_dataloader() for text in b.texts]
    assert shown == [sample.text for sample in tiny_shards.samples(10)]


def test_a_large_validation_set_is_cut_evenly_and_says_so(tmp_path, capsys):
    tiny_shards.write(tmp_path, n=20, per_shard=6)
    data = module(tmp_path, val=str(tmp_path), val_limit=5)
    shown = [text for batch in data.val_dataloader() for text in batch.texts]
    assert shown == [tiny_shards.samples(20)[n].text for n in (0, 4, 8, 12, 16)]
    assert "validation uses 5 of 20 pairs" in capsys.readouterr().err


@pytest.mark.parametrize("val_limit", [20, 100, None])
def test_a_validation_set_within_the_limit_is_whole_and_silent(tmp_path, capsys, val_limit):
    tiny_shards.write(tmp_path, n=20)
    data = module(tmp_path, val=str(tmp_path), val_limit=val_limit)
    assert sum(map(len, data.val_dataloader())) == 20 and capsys.readouterr().err == ""


def test_validation_holds_no_pictures_in_memory(tmp_path):
    tiny_shards.write(tmp_path, n=20, per_shard=6)
    listed = module(tmp_path, val=str(tmp_path)).val_dataloader().dataset
    (tmp_path / "000003.tar").unlink()  # of the last two samples
    assert len(listed[0]) == 4
    with pytest.raises(DataError, match=r"000003\.tar"):
        listed[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "near"}, r"data\.groups: expected"),
        ({"resume": "batch"}, r"data\.resume: expected"),
        ({"val_limit": 0}, r"data\.val_limit is 0"),
        ({"train": {"x": 0}}, "factor of x is 0"),
        ({"train": 3}, r"data\.train: expected"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(tmp_path, options, message):
    tiny_shards.write(tmp_path, n=8)
    node = {"_target_": "pathclip.shards.datamodule.PairsDataModule", "train": str(tmp_path), **options}
    with pytest.raises(ConfigError, match=message) as error:
        build(node, "data", preprocess=None, tokenizer=None)
    assert "\n" not in str(error.value)
