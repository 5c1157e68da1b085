import json

import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.datamodule import PairsDataModule
from pathclip.shards.writer import Sample, write_shards
from tests import tiny_shards


def module(folder, **options):
    preprocess = Preprocess.from_card({"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3})
    tokenizer = Tokenizer(clip_tokenizer_json().encode(), 16, 0)
    return PairsDataModule(str(folder), preprocess, tokenizer, **{"batch_size": 4, "workers": 0, **options})


def batches(data):
    data.trainer = None
    return list(data.train_dataloader())


def test_a_batch_says_which_pairs_belong_together(tmp_path):
    tiny_shards.write(tmp_path, n=16)
    for batch in batches(module(tmp_path)):
        same_group = batch.group[:, None] == batch.group[None]
        same_text = batch.caption[:, None] == batch.caption[None]
        assert same_group.equal(same_text)  # in these shards every group has a text of its own


def test_shards_made_elsewhere_need_neither_metadata_nor_manifest(tmp_path):
    write_shards(tmp_path, [Sample(f"k{i}", tiny_shards.jpeg((90, 90, 90), i), "grey") for i in range(8)])
    (tmp_path / "manifest.json").unlink()
    data = module(tmp_path)
    assert len({int(group) for batch in batches(data) for group in batch.group}) == 8
    assert data.describe() == {"shards": [str(tmp_path)], "pairs": 8, "data_hash": [None]}


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
