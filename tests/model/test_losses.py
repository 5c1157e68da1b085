import math

import open_clip.loss
import pytest
import torch
from torch.nn import functional

from pathclip.config import build
from pathclip.errors import ConfigError
from pathclip.launch import compose
from pathclip.model.losses import (
    ClipLoss,
    CoCaLoss,
    DistillLoss,
    Features,
    MultiPositiveLoss,
    SigLipLoss,
)
from tests.model.loss_cases import (
    BIAS,
    CAPTION,
    GROUP,
    LOSSES,
    SCALE,
    Towers,
    embeddings,
    ids,
    loss_and_gradients,
    on_two_ranks,
    words,
)
from tests.train.processes import run_in


def features(image, text, group=None, caption=None, scale=SCALE, **more):
    alone = torch.arange(len(image))
    group = alone if group is None else group
    return Features(image, text, scale, group, group if caption is None else caption, **more)


def value(loss, *arguments, **named):
    return sum(loss(features(*arguments, **named)).values()).item()


def test_clip_loss_equals_that_of_open_clip():
    image, text = embeddings()
    theirs = open_clip.loss.ClipLoss()(image, text, SCALE).item()
    assert value(ClipLoss(), image, text) == pytest.approx(theirs, abs=1e-6)


def test_the_sigmoid_loss_equals_that_of_open_clip():
    image, text = embeddings()
    theirs = open_clip.loss.SigLipLoss()(image, text, SCALE, BIAS).item()
    assert value(SigLipLoss(), image, text, logit_bias=BIAS) == pytest.approx(theirs, abs=1e-6)


def test_distillation_equals_that_of_open_clip():
    image, text = embeddings()
    teacher = embeddings(d=12, seed=1)
    theirs = open_clip.loss.DistillClipLoss()(image, text, SCALE, *teacher, 20.0)
    ours = DistillLoss(distill_weight=0.5)(
        features(image, text, teacher_image=teacher[0], teacher_text=teacher[1], teacher_scale=20.0)
    )
    assert ours["contrastive"].item() == pytest.approx(theirs[0].item(), abs=1e-6)
    assert ours["distillation"].item() == pytest.approx(theirs[1].item() / 2, abs=1e-6)


def test_the_loss_of_coca_equals_that_of_open_clip():
    image, text = embeddings()
    logits, labels = words()
    theirs = open_clip.loss.CoCaLoss(2.0, 1.0)(image, text, logits[:6], labels[:6], SCALE)
    ours = CoCaLoss()(features(image, text, token_logits=logits[:6], token_labels=labels[:6]))
    assert ours["contrastive"].item() == pytest.approx(theirs[0].item(), abs=1e-6)
    assert ours["caption"].item() == pytest.approx(theirs[1].item(), abs=1e-6)


def test_multi_positive_equals_clip_where_every_pair_is_alone():
    image, text = embeddings()
    assert value(MultiPositiveLoss(), image, text) == pytest.approx(value(ClipLoss(), image, text), abs=1e-6)


def test_clip_has_a_floor_of_log_m_where_multi_positive_reaches_zero():
    # Two posts of three pictures each, perfectly embedded: one direction per post.
    directions = torch.eye(2).repeat_interleave(3, dim=0)
    posts = (directions, directions, ids(0, 0, 0, 1, 1, 1))
    sharp = torch.tensor(100.0)
    assert value(ClipLoss(), *posts, scale=sharp) == pytest.approx(math.log(3), abs=1e-5)
    assert value(MultiPositiveLoss(), *posts, scale=sharp) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("positives", "zero"), [("group_and_text", False), ("group", True), ("text", False)])
def test_what_counts_as_positive_is_what_the_option_says(positives, zero):
    # One group, two texts, all embedded alike within the group.
    directions = torch.eye(2).repeat_interleave(2, dim=0)
    group, caption = ids(0, 0, 1, 1), ids(0, 1, 2, 3)
    loss = MultiPositiveLoss(positives)
    reached = value(loss, directions, directions, group, caption, scale=torch.tensor(100.0))
    assert (reached < 1e-4) is zero


def test_the_sigmoid_loss_can_call_pairs_of_one_text_positives():
    directions = torch.eye(2).repeat_interleave(2, dim=0)
    sharp = {"scale": torch.tensor(100.0), "logit_bias": torch.tensor(-50.0)}
    pairs = (directions, directions, ids(0, 0, 1, 1))
    assert value(SigLipLoss("group_and_text"), *pairs, **sharp) == pytest.approx(0, abs=1e-5)
    assert value(SigLipLoss(), *pairs, **sharp) == pytest.approx(50, abs=1e-3)


def test_gradients_reach_both_towers():
    image, text = embeddings()
    image.requires_grad_(), text.requires_grad_()
    image, text = image.clone(), text.clone()
    image.retain_grad(), text.retain_grad()
    MultiPositiveLoss()(features(image, text))["contrastive"].backward()
    assert image.grad.abs().sum() > 0 and text.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [ClipLoss, MultiPositiveLoss])
def test_hard_negatives_follow_the_formula(kind):
    image, text = embeddings()
    beta, logits = 0.5, 10 * image @ text.T
    expected = []
    for rows in (logits, logits.T):
        for i, row in enumerate(rows):
            others = torch.cat([row[:i], row[i + 1 :]])
            weights = len(others) * (beta * others).softmax(0)
            expected.append(-row[i] + (row[i].exp() + (weights * others.exp()).sum()).log())
    ours = value(kind(hard_negative_beta=beta), image, text)
    assert ours == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)
    assert ours > value(kind(), image, text) + 0.1


def test_hard_negatives_never_push_an_easy_one_nearer():
    image, text = embeddings()
    text = text.clone().requires_grad_()
    logits = image @ text.T
    logits.retain_grad()
    from pathclip.model.losses.softmax import reweight_negatives

    negative = ~torch.eye(6, dtype=torch.bool)
    functional.cross_entropy(reweight_negatives(10 * logits, negative, 1.0), torch.arange(6)).backward()
    assert (logits.grad[negative] >= 0).all()


def test_a_row_without_negatives_stays_a_number():
    image, text = embeddings(3)
    loss = MultiPositiveLoss(hard_negative_beta=0.5)
    assert value(loss, image, text, ids(0, 0, 0)) == pytest.approx(
        value(MultiPositiveLoss(), image, text, ids(0, 0, 0)), abs=1e-6
    )


def test_the_feature_term_is_the_distance_to_the_teacher():
    image, text = embeddings()
    teacher = {"teacher_image": image, "teacher_text": -text, "teacher_scale": 1.0}
    term = DistillLoss(feature_weight=3.0)(features(image, text, **teacher))["feature"]
    assert term.item() == pytest.approx(3 * (0 + 4 / 8) / 2, abs=1e-6)


def test_a_student_of_another_length_is_matched_through_a_map_that_is_learnt():
    image, text = embeddings()
    teacher = embeddings(d=12, seed=1)
    loss = DistillLoss(feature_weight=3.0)
    loss.match_lengths(8, 12)
    given = {"teacher_image": teacher[0], "teacher_text": teacher[1], "teacher_scale": 1.0}
    term = loss(features(image, text, **given))["feature"]
    cosines = [
        functional.cosine_similarity(own @ loss.to_teacher.weight.T, theirs)
        for own, theirs in zip((image, text), teacher, strict=True)
    ]
    assert term.item() == pytest.approx(3 * (2 - 2 * torch.stack(cosines).mean().item()) / 12, abs=1e-6)
    term.backward()
    assert loss.to_teacher.weight.grad.abs().max() > 0
    same = DistillLoss(feature_weight=3.0)
    same.match_lengths(8, 8)
    assert not list(same.parameters()) and not list(DistillLoss().parameters())


def with_unlabelled():
    """Features of six pairs and four pictures without texts, and the latter's embeddings."""
    image, text = embeddings()
    teacher, beside = embeddings(d=12, seed=1), embeddings(4, seed=3)[0]
    theirs = embeddings(4, d=12, seed=4)[0]
    given = {"teacher_image": teacher[0], "teacher_text": teacher[1], "teacher_scale": 20.0}
    return features(image, text, unlabelled=beside, teacher_unlabelled=theirs, **given), beside, theirs


def test_pictures_without_texts_learn_the_teachers_similarities_with_the_captions_of_the_batch():
    found, beside, theirs = with_unlabelled()
    term = DistillLoss(unlabelled_weight=0.5)(found)["unlabelled"]
    target = (20.0 * theirs @ found.teacher_text.T).softmax(dim=1)
    expected = functional.cross_entropy(SCALE * beside @ found.text.T, target)
    assert term.item() == pytest.approx(0.5 * expected.item(), abs=1e-6)


def test_pictures_without_texts_change_no_other_term():
    found, *_ = with_unlabelled()
    beside = DistillLoss(MultiPositiveLoss())(found)
    assert "unlabelled" not in DistillLoss(unlabelled_weight=0.0)(found)
    found.unlabelled = found.teacher_unlabelled = None
    alone = DistillLoss(MultiPositiveLoss())(found)
    assert alone.keys() == beside.keys() - {"unlabelled"}
    assert all(alone[name].equal(beside[name]) for name in alone)


def test_the_feature_term_is_a_mean_over_pictures_with_and_without_texts():
    image, text = embeddings()
    given = {"teacher_image": image, "teacher_text": text, "teacher_scale": 1.0}
    beside = embeddings(2, seed=3)[0]
    found = features(image, text, unlabelled=beside, teacher_unlabelled=-beside, **given)
    assert DistillLoss(feature_weight=3.0)(found)["feature"].item() == pytest.approx(
        3 * (2 / 8 * 4 / 8) / 2, abs=1e-6
    )


def test_what_a_loss_lacks_is_one_line():
    image, text = embeddings()
    teacher = embeddings(d=12, seed=1)
    with pytest.raises(ConfigError, match=r"model\.logit_bias=-10"):
        SigLipLoss()(features(image, text))
    with pytest.raises(ConfigError, match="no teacher"):
        DistillLoss()(features(image, text))
    with pytest.raises(ConfigError, match="12 numbers, the student's 8"):
        DistillLoss(feature_weight=1.0)(
            features(image, text, teacher_image=teacher[0], teacher_text=teacher[1], teacher_scale=1.0)
        )
    with pytest.raises(ConfigError, match="model=coca"):
        CoCaLoss()(features(image, text))


@pytest.mark.parametrize(
    "override",
    [
        "loss.hard_negative_beta=-1",
        "loss=distill loss.distill_weight=-1",
        "loss=distill loss.unlabelled_weight=-1",
        "loss=coca loss.caption_weight=-1",
    ],
)
def test_a_negative_weight_is_refused_by_its_key(override):
    cfg = compose("train", ["data.train=x", *override.split()])
    with pytest.raises(ConfigError, match="must be at least 0"):
        build(cfg.loss, "loss")


@pytest.mark.parametrize(
    "loss",
    [
        ClipLoss(),
        ClipLoss(hard_negative_beta=0.5),
        *(MultiPositiveLoss(kind) for kind in ("pair", "group", "text", "group_and_text")),
        MultiPositiveLoss(hard_negative_beta=0.5),
        DistillLoss(MultiPositiveLoss(), contrastive_weight=0.5),
        CoCaLoss(contrastive_weight=0.5),
    ],
)
def test_the_chance_level_is_the_loss_of_embeddings_that_are_all_equal(loss):
    image, text = embeddings(1)[0].expand(8, 8), embeddings(1)[1].expand(8, 8)
    more = {"teacher_image": image, "teacher_text": text, "teacher_scale": 1.0}
    logits, labels = words()
    found = loss(features(image, text, GROUP, CAPTION, token_logits=logits, token_labels=labels, **more))
    assert loss.chance_level(GROUP, CAPTION) == pytest.approx(found["contrastive"].item(), abs=1e-5)


@pytest.mark.parametrize("positives", ["pair", "group_and_text"])
def test_the_chance_level_of_the_sigmoid_loss_is_that_of_the_best_constant(positives):
    loss, image = SigLipLoss(positives), embeddings(8)[0]
    constants = torch.arange(-8, 8, 0.05)
    zero = torch.tensor(0.0)
    reached = [value(loss, image, image, GROUP, CAPTION, scale=zero, logit_bias=bias) for bias in constants]
    assert loss.chance_level(GROUP, CAPTION) == pytest.approx(min(reached), abs=5e-3)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two processes with half of the batch each found, by the loss's name."""
    folder = tmp_path_factory.mktemp("ranks")
    assert run_in(2, on_two_ranks, (folder,)) == [0, 0]
    return torch.load(folder / "results")


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_have_the_loss_and_gradient_of_the_whole_batch(name, two_ranks):
    whole = loss_and_gradients(LOSSES[name].train(), slice(None))
    for found, expected in zip(two_ranks[name][0], whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_validation_is_each_ranks_own(name, two_ranks):
    with torch.no_grad():
        half = sum(LOSSES[name].eval()(Towers().features(slice(0, 4))).values())
    torch.testing.assert_close(two_ranks[name][1], half, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("local", [True, False])
def test_without_gradients_of_what_was_gathered_the_value_stays_and_the_gradient_does_not(local, two_ranks):
    found, image, text, scale, *_ = two_ranks[f"local_loss={local}"][0]
    loss = ClipLoss(local_loss=local, gather_with_grad=False).train()
    whole, whole_image, whole_text, whole_scale, *_ = loss_and_gradients(loss, slice(None))
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(scale, whole_scale, atol=1e-6, rtol=1e-6)
    if local:  # a row trains its tower as a query only
        assert not torch.allclose(image, whole_image, atol=1e-3)
        assert not torch.allclose(image, whole_image / 2, atol=1e-3)
    else:  # of 2 ranks each has the gradient of its own half, and the mean halves it
        torch.testing.assert_close(image, whole_image / 2, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(text, whole_text / 2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("loss", [DistillLoss(MultiPositiveLoss()), CoCaLoss(MultiPositiveLoss())])
def test_validation_on_embeddings_alone_gives_the_contrastive_term_alone(loss):
    image, text = embeddings(8)
    terms = loss.eval()(features(image, text, GROUP, CAPTION))
    assert list(terms) == ["contrastive"]
    assert terms["contrastive"].item() == pytest.approx(
        value(MultiPositiveLoss(), image, text, GROUP, CAPTION)
    )


def test_similarities_are_in_full_precision_under_autocast():
    image, text = embeddings()
    expected = value(ClipLoss(), image, text, scale=torch.tensor(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert value(ClipLoss(), image, text, scale=torch.tensor(100.0)) == pytest.approx(expected, abs=1e-5)
