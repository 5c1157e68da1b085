import pytest
import torch
from torch import nn

from pathclip.errors import ConfigError
from pathclip.model.freeze import set_frozen_to_eval, unlocked_layers
from pathclip.model.layers import tower_layers
from tests.model.each_kind import KINDS, towers_of

TEXT = ("text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
PREFIX = {"image": ("visual.",), "text": TEXT}


def trained(towers):
    return {name for name, parameter in towers.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_a_tower_stands_in_exactly_one_layer(kind, bert):
    model = towers_of(kind, bert).model
    names = [name for layers in tower_layers(model).values() for layer in layers.names for name in layer]
    own = [name for name, _ in model.named_parameters() if name not in ("logit_scale", "logit_bias")]
    assert sorted(names) == sorted(own)


@pytest.mark.parametrize(
    ("kind", "tower", "layers", "first", "last"),
    [
        ("open_clip", "image", 5, "visual.conv1.weight", "visual.proj"),
        ("open_clip", "text", 5, "token_embedding.weight", "text_projection"),
        ("custom text", "text", 5, "text.token_embedding.weight", "text.text_projection"),
        ("resnet", "image", 6, "visual.conv1.weight", "visual.attnpool.c_proj.weight"),
        ("coca", "image", 4, "visual.conv1.weight", "visual.proj"),
        ("coca", "text", 4, "text.cls_emb", "text.text_projection"),
        ("coca", "decoder", 3, "text_decoder.cross_attn.0.ln_1.weight", "text_decoder.text_projection"),
        ("timm vit and bert", "text", 5, "text.transformer.embeddings.LayerNorm.weight", "text.proj.weight"),
        ("timm vit and bert", "image", None, "visual.trunk.pos_embed", "visual.head.proj.weight"),
        (
            "timm efficientnet and bert",
            "image",
            None,
            "visual.trunk.conv_stem.weight",
            "visual.head.proj.weight",
        ),
    ],
)
def test_layers_run_from_the_input_to_the_projection(kind, tower, layers, first, last, bert):
    found = tower_layers(towers_of(kind, bert).model)[tower].names
    assert layers is None or len(found) == layers
    assert first in found[0] and last in found[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_locked_tower_trains_nothing_but_a_projection_that_was_added_to_it(kind, tower, bert):
    towers = towers_of(kind, bert, lock=[tower])
    added = {"image": {"visual.head.proj.weight"}, "text": {"text.proj.weight"}}[tower]
    left = {name for name in trained(towers) if name.startswith(PREFIX[tower])}
    assert left == (added if "timm" in kind else set())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tower", ["image", "text"])
def test_n_layers_at_the_top_stay_trainable(kind, tower, bert):
    towers = towers_of(kind, bert, lock=[f"{tower}:2"])
    layers = tower_layers(towers.model)[tower].lockable
    open_, locked = {n for layer in layers[-2:] for n in layer}, {n for layer in layers[:-2] for n in layer}
    assert open_ <= trained(towers) and locked and not locked & trained(towers)
    assert towers.locked == {tower: 2}


def test_the_groups_of_a_vision_transformer_are_those_of_open_clip(bert):
    for unlocked in (0, 1, 2, 3):
        theirs = towers_of("open_clip", bert)
        theirs.model.lock_image_tower(unlocked_groups=unlocked)
        theirs.model.lock_text_tower(unlocked_layers=unlocked)
        ours = towers_of("open_clip", bert, lock={"image": unlocked, "text": unlocked})
        assert trained(ours) == trained(theirs)


@pytest.mark.parametrize("kind", ["timm efficientnet and bert", "resnet", "open_clip"])
def test_norms_of_locked_layers_stay_trainable_where_asked(kind, bert):
    towers = towers_of(kind, bert, lock=["image", "text"], lock_norms=False)
    modules = dict(towers.model.named_modules())
    kinds = {type(modules[name.rsplit(".", 1)[0]]) for name in trained(towers) if "." in name}
    assert any(issubclass(kind, nn.LayerNorm | nn.BatchNorm2d) for kind in kinds)
    assert all(issubclass(kind, nn.LayerNorm | nn.BatchNorm2d | nn.Linear) for kind in kinds)


def test_locked_layers_neither_drop_out_nor_move_their_statistics(bert):
    towers = towers_of("timm efficientnet and bert", bert, lock=["image", "text"])
    towers.model.train()
    set_frozen_to_eval(towers.model)
    before = {name: value.clone() for name, value in towers.model.named_buffers()}
    pixels, tokens = torch.randn(4, 3, 64, 64), torch.randint(1, 8, (4, 16))
    first = towers.model.encode_image(pixels), towers.model.encode_text(tokens)
    again = towers.model.encode_image(pixels), towers.model.encode_text(tokens)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in towers.model.named_buffers())


def test_layers_above_the_locked_ones_stay_in_training_mode(bert):
    towers = towers_of("timm efficientnet and bert", bert, lock={"text": 1, "image": 1})
    towers.model.train()
    towers.still()
    blocks = towers.model.text.transformer.encoder.layer
    assert blocks[-1].training and not blocks[0].training
    assert towers.model.visual.trunk.bn2.training and not towers.model.visual.trunk.bn1.training


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (["picture"], "neither 'image' nor 'text'"),
        ({"image": 5}, r"lock\.image=5: the tower has 5 layers, so at most 4"),
        ({"image": -1}, "0 or more, got -1"),
        (["image:two"], "0 or more, got 'two'"),
        ({"text": True}, "0 or more, got True"),
    ],
)
def test_what_cannot_be_locked_is_one_line(lock, message, bert):
    with pytest.raises(ConfigError, match=message):
        towers_of("open_clip", bert, lock=lock)


def test_the_ways_to_write_what_is_locked():
    assert unlocked_layers(None) == unlocked_layers([]) == {}
    assert unlocked_layers(["image:2", "text"]) == unlocked_layers({"image": 2, "text": 0})
