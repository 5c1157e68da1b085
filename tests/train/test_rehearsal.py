import json
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from pathclip.config import build
from pathclip.errors import ConfigError
from pathclip.launch import compose
from pathclip.train.meters import peak_memory
from pathclip.train.rehearsal import free_memory, made_up_batch, rehearse

SMALL_NORMED = [
    *("model=lite", "model.image=test_efficientnet", "model.image_size=64"),
    *("model.pretrained=false", "+model.text_layers=1"),
]


class Task(nn.Module):
    """Two towers and the plain loss, without Lightning."""

    def __init__(self, *overrides):
        super().__init__()
        self.towers = build(compose("train", [*overrides, "out=unused"]).model)
        self.model = self.towers.model

    def step(self, batch):
        image = functional.normalize(self.model.encode_image(batch.pixels), dim=-1)
        text = functional.normalize(self.model.encode_text(batch.tokens), dim=-1)
        logits = self.model.logit_scale.exp() * image @ text.T
        return functional.cross_entropy(logits, torch.arange(len(logits)))


def test_a_run_that_fits_is_let_through():
    task = Task("model=tiny")
    need = rehearse(task, task.step, 8)
    weights = sum(p.nbytes for p in task.parameters())
    assert need.gradients == weights and need.optimizer == 2 * weights
    assert need.total(8) > 4 * weights


def test_activations_grow_with_the_pairs_at_a_time():
    task = Task("model=tiny")
    need = rehearse(task, task.step, 64)
    more = [need.activations(2 * pairs) - need.activations(pairs) for pairs in (128, 256, 512)]
    assert more[0] > 0 and more[1:] == pytest.approx([2 * more[0], 4 * more[0]], rel=0.05)


def test_everything_is_afterwards_what_it_was():
    task = Task(*SMALL_NORMED)
    task.train()
    task.model.visual.trunk.eval()
    task.model.logit_scale.grad = torch.tensor(7.0)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    modes = [module.training for module in task.modules()]
    random = torch.get_rng_state()
    rehearse(task, task.step, 8)
    assert [name for name, value in task.state_dict().items() if not value.equal(before[name])] == []
    assert [module.training for module in task.modules()] == modes
    assert torch.get_rng_state().equal(random)
    gradients = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    assert gradients == {"model.logit_scale": torch.tensor(7.0)}


def test_a_batch_too_large_is_refused_with_one_that_fits():
    task = Task("model=tiny")
    need = rehearse(task, task.step, 256)
    with pytest.raises(ConfigError, match=r"set micro_batch=\d+, lower data.batch_size to \d+") as refused:
        rehearse(task, task.step, 256, free=int(need.still_to_come(40)))
    assert "micro_batch=32," in str(refused.value)
    rehearse(task, task.step, 256, micro_batch=32, free=int(need.still_to_come(40)))


def test_a_model_too_large_for_even_one_pair_is_refused():
    task = Task("model=tiny")
    with pytest.raises(ConfigError, match="even one pair at a time needs"):
        rehearse(task, task.step, 8, free=1000)


def test_a_wrong_shape_is_one_line_that_names_model_and_size():
    task = Task("model=tiny")
    task.towers.preprocess_cfg = {**task.towers.preprocess_cfg, "size": 48}
    with pytest.raises(ConfigError, match=r"model=ViT-B-32: a trial step on 2 pictures of 48x48") as refused:
        rehearse(task, task.step, 8)
    assert "\n" not in str(refused.value)


def test_a_moving_average_and_other_optimisers_are_counted():
    task = Task("model=tiny")
    plain = rehearse(task, task.step, 8)
    more = rehearse(task, task.step, 8, ema=True, optimizer_slots=0)
    assert more.total(8) - plain.total(8) == pytest.approx(plain.weights - plain.optimizer, rel=0.01)


def test_gradient_checkpointing_shows_in_the_estimate():
    task = Task("model=tiny", "model.overrides.vision_cfg.layers=8", "model.image_size=64")
    plain = rehearse(task, task.step, 64).activations(64)
    task.model.set_grad_checkpointing()
    assert rehearse(task, task.step, 64).activations(64) < 0.7 * plain


def test_processes_of_one_machine_share_its_memory():
    assert free_memory(torch.device("cpu"), 4) < free_memory(torch.device("cpu"), 1) / 2


MEASURE = """
import json, sys, torch
from tests.train.test_rehearsal import Task, peak_of_steps
from pathclip.train.rehearsal import rehearse
task = Task(*json.loads(sys.argv[1]))
pairs = int(sys.argv[2])
need = rehearse(task, task.step, pairs, batches_held=1)
print(json.dumps([need.still_to_come(pairs), peak_of_steps(task, pairs)]))
"""


def peak_of_steps(task, pairs):
    """Bytes that three real steps add to what is resident before them."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        before = int(file.read().split()[1]) * resource.getpagesize()
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-5)
    task.train()
    for _ in range(3):
        optimizer.zero_grad()
        task.step(made_up_batch(task.towers, pairs)).backward()
        optimizer.step()
    # Not ru_maxrss: a process inherits that of the one it was started from, which is the whole test run.
    return peak_memory(torch.device("cpu")) - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("overrides", "pairs"),
    [
        (["model=lite"], 16),
        pytest.param(["model=lite"], 32, marks=pytest.mark.slow),
        pytest.param(["model=vit_b_32"], 8, marks=pytest.mark.slow),
        pytest.param(["model=vit_b_32"], 16, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_within_a_quarter_of_the_real_peak(overrides, pairs):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(overrides), str(pairs)],
        capture_output=True,
        text=True,
        check=True,
    )
    estimate, real = json.loads(done.stdout.splitlines()[-1])
    assert 0.75 < estimate / real < 1.25
