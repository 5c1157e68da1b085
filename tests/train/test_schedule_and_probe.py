import pytest
import torch

from pathclip.train.probe import recall_at, zero_shot
from pathclip.train.schedule import warmup_cosine


def test_the_warm_up_rises_in_a_line_and_the_cosine_falls_to_the_floor():
    factors = [warmup_cosine(step, 100, warmup=10, floor=0.1) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)


def test_a_share_of_the_run_can_be_given_for_the_warm_up():
    assert warmup_cosine(9, 100, warmup=0.1) == warmup_cosine(9, 100, warmup=10)


def test_recall_counts_any_row_of_the_same_identity():
    gallery = torch.eye(3)
    queries = torch.eye(3)[[1, 1, 2]]
    assert recall_at(1, queries, gallery, torch.tensor([0, 1, 2])).item() == pytest.approx(2 / 3)
    assert recall_at(1, queries, gallery, torch.tensor([7, 7, 2])).item() == 1.0


def test_zero_shot_accuracy_weighs_every_class_alike():
    images = torch.eye(3)[[0, 0, 0, 0, 1, 2]]
    labels = torch.tensor([0, 0, 0, 0, 2, 1])  # four of the common class right, both rare ones wrong
    assert zero_shot(images, torch.eye(3), labels).item() == pytest.approx(1 / 3)


def test_zero_shot_accuracy_leaves_out_classes_that_do_not_occur():
    images = torch.eye(3)[[0, 1, 0]]
    assert zero_shot(images, torch.eye(3), torch.tensor([0, 1, 1])).item() == pytest.approx(0.75)


@pytest.mark.parametrize("labels", [[], [3], [-1]])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        zero_shot(torch.eye(3)[: len(labels)], torch.eye(3), torch.tensor(labels, dtype=torch.int64))
