import copy

import pytest
import torch
from torch.nn import functional

from pathclip.errors import ConfigError
from pathclip.train.parameter_groups import parameter_groups
from tests.model.each_kind import KINDS, towers_of, write_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


def scales(towers, groups):
    """Name of a parameter → its factor of the learning rate."""
    names = {id(parameter): name for name, parameter in towers.model.named_parameters()}
    return {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5, {"image": 0.5}])
@pytest.mark.parametrize("kind", KINDS)
def test_every_trained_parameter_stands_in_exactly_one_group(kind, layer_decay, bert):
    towers = towers_of(kind, bert, lock={"image": 2})
    grouped = [p for group in parameter_groups(towers, 0.1, layer_decay) for p in group["params"]]
    trained = [p for p in towers.model.parameters() if p.requires_grad]
    assert len(grouped) == len(trained)
    assert {id(p) for p in grouped} == {id(p) for p in trained}


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_falls_from_the_projection_to_the_input(kind, bert):
    towers = towers_of(kind, bert)
    found = scales(towers, parameter_groups(towers, 0.1, 0.5))
    assert found["logit_scale"] == 1
    tops = {
        "open_clip": ("visual.proj", "text_projection"),
        "custom text": ("visual.proj", "text.text_projection"),
        "resnet": ("visual.attnpool.c_proj.weight", "text_projection"),
        "coca": ("visual.proj", "text.text_projection", "text_decoder.text_projection"),
    }.get(kind, ("visual.head.proj.weight", "text.proj.weight"))
    assert all(found[name] == 1 for name in tops)
    bottoms = {
        "open_clip": {
            "visual.conv1.weight": 4,
            "token_embedding.weight": 4,
            "transformer.resblocks.2.ln_1.bias": 1,
        },
        "custom text": {"visual.class_embedding": 4, "text.token_embedding.weight": 4},
        "resnet": {"visual.conv1.weight": 5, "visual.layer4.0.conv1.weight": 1},
        "coca": {"visual.attn_pool.query": 1, "text.cls_emb": 3, "text_decoder.cross_attn.0.ln_1.weight": 2},
        "timm vit and bert": {
            "text.transformer.encoder.layer.2.output.dense.weight": 1,
            "text.transformer.encoder.layer.0.output.dense.weight": 3,
            "text.transformer.embeddings.word_embeddings.weight": 4,
        },
        "timm efficientnet and bert": {"text.transformer.embeddings.LayerNorm.weight": 4},
    }[kind]
    assert {name: found[name] for name in bottoms} == {name: 0.5**depth for name, depth in bottoms.items()}


@pytest.mark.parametrize(
    ("kind", "stem"), [("timm vit and bert", "pos_embed"), ("timm efficientnet and bert", "conv_stem.weight")]
)
def test_a_timm_trunk_decays_by_its_own_groups(kind, stem, bert):
    towers = towers_of(kind, bert)
    found = scales(towers, parameter_groups(towers, 0.1, {"image": 0.5}))
    trunk = {name: scale for name, scale in found.items() if name.startswith("visual.trunk.")}
    assert min(trunk.values()) == trunk[f"visual.trunk.{stem}"] < max(trunk.values()) == 0.5
    assert found["text.transformer.embeddings.word_embeddings.weight"] == 1


def test_norms_biases_and_the_logit_scale_do_not_decay(bert):
    towers = towers_of("open_clip", bert, logit_bias=-10.0)
    names = {id(parameter): name for name, parameter in towers.model.named_parameters()}
    still = {
        names[id(p)]
        for group in parameter_groups(towers, 0.1, 0.9)
        for p in group["params"]
        if group["weight_decay"] == 0
    }
    assert {"logit_scale", "logit_bias", "visual.class_embedding", "ln_final.weight"} <= still
    assert "visual.transformer.resblocks.0.mlp.c_fc.bias" in still
    assert not {"visual.positional_embedding", "token_embedding.weight", "visual.proj"} & still


def test_the_order_and_names_of_groups_are_the_same_each_time(bert):
    first, second = (
        [
            (group["name"], group["lr_scale"], [tuple(p.shape) for p in group["params"]])
            for group in parameter_groups(towers_of("coca", bert), 0.1, 0.5)
        ]
        for _ in range(2)
    )
    assert first == second
    assert len({name for name, *_ in first}) == len(first)
    assert first[0][0].startswith("full rate")


def test_without_layer_decay_training_is_what_two_plain_groups_give(bert):
    towers = towers_of("open_clip", bert)
    other = copy.deepcopy(towers.model)
    trained = [p for p in other.parameters() if p.requires_grad]
    plain = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    ours = [
        {key: group[key] for key in ("params", "weight_decay")} for group in parameter_groups(towers, 0.1)
    ]
    pixels, tokens = torch.randn(4, 3, 32, 32), torch.randint(1, 1000, (4, 16))
    for model, groups in ((towers.model, ours), (other, plain)):
        optimizer = torch.optim.AdamW(groups, lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            logits = model.logit_scale.exp() * model.encode_image(pixels) @ model.encode_text(tokens).T
            functional.cross_entropy(logits, torch.arange(4)).backward()
            optimizer.step()
    for mine, theirs in zip(towers.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("layer_decay", "message"),
    [
        (0.0, "layer_decay: a factor above 0"),
        (1.5, "layer_decay: a factor above 0"),
        ({"picture": 0.5}, r"layer_decay\.picture: the model has no such tower"),
        ({"decoder": 0.5}, r"layer_decay\.decoder: the model has no such tower"),
        ({"text": 2}, r"layer_decay\.text: a factor above 0"),
    ],
)
def test_a_wrong_factor_is_one_line(layer_decay, message, bert):
    with pytest.raises(ConfigError, match=message):
        parameter_groups(towers_of("open_clip", bert), 0.1, layer_decay)


def test_nothing_left_to_train_is_one_line(bert):
    towers = towers_of("open_clip", bert, lock=["image", "text"])
    towers.model.logit_scale.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing is left to train"):
        parameter_groups(towers, 0.1)
