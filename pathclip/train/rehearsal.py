"""One step on made-up pairs before the long work: are the shapes right, and will the run fit in memory?"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pathclip.errors import ConfigError, PathclipError
from pathclip.model.losses.gather import alone
from pathclip.model.towers import Towers
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.collate import Batch
from pathclip.shards.stream import Position

_GB = 1e9
# An estimate is refused only where nine tenths of it are more than what is free.
_SURE = 0.9
_FEW, _MORE = 2, 4  # pairs; the difference tells what one more pair takes
_LOGITS = 6  # tables of global batch x global batch that a contrastive loss holds at once, float32


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes in use at one moment of a step.

    Attributes:
        fixed: whatever the number of pairs.
        per_pair: for each pair that goes through the towers.
        gradients: of parameters that are done.
    """

    fixed: float
    per_pair: float
    gradients: float


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a run takes in one process, without Python and its libraries.

    Attributes:
        weights: parameters and buffers.
        gradients: of all trained parameters.
        optimizer: its state.
        average: the moving average of the weights (EMA).
        batch: pictures and tokens that are held.
        logits: what the loss holds for every two pairs of the global batch.
        moments: of forward and backward.
        on_gpu: weights are yet to be copied to the device.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    batch: int
    logits: int
    moments: tuple[Moment, ...]
    on_gpu: bool

    def activations(self, pairs: int) -> float:
        """At most, with that many pairs at a time in the towers."""
        return max(moment.fixed + moment.per_pair * pairs for moment in self.moments)

    def total(self, pairs: int) -> float:
        """Peak with that many pairs at a time in the towers.

        Activations go as gradients come, so their sum is taken at each moment of the backward pass.
        """
        working = max(m.fixed + m.per_pair * pairs + m.gradients for m in self.moments)
        held = self.weights + self.optimizer + self.average + self.batch + self.logits
        return held + max(working, self.gradients)

    def still_to_come(self, pairs: int) -> float:
        """What is not in memory yet."""
        return self.total(pairs) - (0 if self.on_gpu else self.weights)


def rehearse(
    task: Any,
    step: Callable[[Batch], Tensor],
    batch_size: int,
    micro_batch: int | None = None,
    *,
    world: int = 1,
    processes_here: int = 1,
    optimizer_slots: int = 2,
    ema: bool = False,
    batches_held: int = 2,
    free: int | None = None,
    device: torch.device | str = "cpu",
    teacher_tokenizer: Tokenizer | None = None,
    unlabelled_per_pair: float = 0.0,
) -> MemoryNeed:
    """Does forward, loss and backward on a few made-up pairs, and refuses a run that cannot work.

    To be called before `trainer.fit` and before `torch.compile`. Weights, statistics of norms, gradients,
    modes and random numbers are afterwards what they were.

    Args:
        task: with `towers`; its parameters and buffers are counted.
        step: the loss of a batch, with its graph; must not log.
        batch_size: pairs of one process.
        micro_batch: pairs that go through the towers at a time; None for all of the batch.
        world: processes of the run; the loss compares the pairs of all.
        processes_here: those that share this machine's memory.
        optimizer_slots: numbers that the optimiser keeps for each weight; 2 for AdamW.
        ema: whether a moving average of the weights is kept.
        batches_held: batches in memory at a time, those that wait included.
        free: bytes; measured if None.
        device: where the run will be; the rehearsal itself runs where the task is.
        teacher_tokenizer: of a teacher to distil from.
        unlabelled_per_pair: pictures without texts for each pair.

    Returns:
        What the run takes.

    Raises:
        ConfigError: a wrong shape; names model and image size. Or too little memory; names what fits.
    """
    towers: Towers = task.towers
    on_gpu = torch.device(device).type == "cuda"
    with as_it_was(task):
        task.train()
        few, more = (
            _traced_step(
                task, step, made_up_batch(towers, pairs, teacher_tokenizer, unlabelled_per_pair), towers
            )
            for pairs in (_FEW, _MORE)
        )
    one = made_up_batch(towers, 1, teacher_tokenizer)
    trained = _bytes(p for p in task.parameters() if p.requires_grad)
    need = MemoryNeed(
        weights=_bytes([*task.parameters(), *task.buffers()]),
        gradients=trained,
        optimizer=optimizer_slots * trained,
        average=_bytes(task.parameters()) if ema else 0,
        batch=int(one.pixels.nbytes * (1 + unlabelled_per_pair) + one.tokens.nbytes)
        * (batch_size * batches_held),
        logits=_LOGITS * 4 * (batch_size * world) * batch_size,
        moments=_moments(few, more),
        on_gpu=on_gpu,
    )
    available = free_memory(torch.device(device), processes_here) if free is None else free
    _refuse_too_much(need, available, batch_size, micro_batch, world, towers)
    return need


def made_up_batch(
    towers: Towers, pairs: int, teacher_tokenizer: Tokenizer | None = None, unlabelled_per_pair: float = 0.0
) -> Batch:
    """Noise and long texts in the shapes of the model, each pair of a group and text of its own."""
    noise = torch.Generator().manual_seed(0)
    # A BatchNorm over a single picture may have one number for each channel, which has no variance.
    beside = max(2, round(pairs * unlabelled_per_pair)) if unlabelled_per_pair else 0
    size = towers.preprocess_cfg["size"]
    height, width = (size, size) if isinstance(size, int) else size
    texts = [f"{pairs} made-up {number} " + "tissue " * towers.context_length for number in range(pairs)]
    tokenizer = towers.tokenizer()
    return Batch(
        pixels=torch.randn(pairs, 3, height, width, generator=noise),
        tokens=torch.from_numpy(tokenizer(texts)),
        group=torch.arange(pairs),
        caption=torch.arange(pairs),
        position=Position(),
        texts=texts,
        labels=[""] * pairs,
        teacher_tokens=torch.from_numpy(teacher_tokenizer(texts)) if teacher_tokenizer else None,
        unlabelled=torch.randn(beside, 3, height, width, generator=noise) if beside else None,
    )


@contextlib.contextmanager
def as_it_was(task: nn.Module) -> Iterator[None]:
    """Puts buffers, gradients, modes and torch's random numbers back as they were."""
    buffers = {name: buffer.clone() for name, buffer in task.named_buffers()}
    gradients = [(parameter, parameter.grad) for parameter in task.parameters()]
    modes = [(module, module.training) for module in task.modules()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng():
            yield
    finally:
        with torch.no_grad():
            for name, buffer in task.named_buffers():
                buffer.copy_(buffers[name])
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode


def free_memory(device: torch.device, processes_here: int = 1) -> int:
    """Bytes that this process may still take: of the GPU, or its share of the machine and its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such control group, or 'max'
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(free, 0) // processes_here


def _refuse_too_much(
    need: MemoryNeed, free: int, batch_size: int, micro_batch: int | None, world: int, towers: Towers
) -> None:
    pairs = min(micro_batch or batch_size, batch_size)
    if need.still_to_come(pairs) * _SURE <= free:
        return
    words = f"needs about {need.still_to_come(pairs) / _GB:.1f} GB, {free / _GB:.1f} GB are free: "
    smaller = [2**power for power in range(pairs.bit_length()) if 2**power < pairs]
    fitting = [count for count in smaller if need.still_to_come(count) <= free]
    if not fitting:
        one = need.still_to_come(1) / _GB
        raise ConfigError(
            f"model={towers.name}, batches of {batch_size} pairs: {words}"
            f"even one pair at a time needs {one:.1f} GB. Take a smaller model, or a machine with more memory"
        )
    raise ConfigError(
        f"model={towers.name}, {pairs} pairs at a time: {words}set micro_batch={fitting[-1]}, "
        f"lower data.batch_size to {fitting[-1] * world}, or set grad_checkpointing=true"
    )


class _Trace(TorchDispatchMode):
    """Notes the bytes of all tensors made since it began, each time that one is made."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.gradients = 0
        self.events: list[tuple[int, int]] = []
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def forget(self, tensors: Any) -> None:
        """Tensors that were there before do not count."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = storage

    def gradient_done(self, parameter: Tensor) -> None:
        """Frees a gradient: gradients are counted apart, as they grow while activations go."""
        if parameter.grad is not None:
            self.gradients += parameter.grad.nbytes
            parameter.grad = None

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.finalize(storage, self._gone, key, size)
        self.live += size
        self.events.append((self.live, self.gradients))

    def _gone(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.live -= size


def _traced_step(
    task: nn.Module, step: Callable[[Batch], Tensor], batch: Batch, towers: Towers
) -> list[tuple[int, int]]:
    device = next(task.parameters()).device
    batch = batch.to(device)
    trace = _Trace()
    trace.forget([*task.parameters(), *task.buffers(), batch.pixels, batch.tokens])
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    hooks = [parameter.register_post_accumulate_grad_hook(trace.gradient_done) for parameter in trained]
    try:
        # A launcher may have brought the processes together already; the others rehearse for themselves.
        with torch.enable_grad(), alone(), trace:
            step(batch).backward()
    except PathclipError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError, MemoryError) as error:
        raise ConfigError(_explained(error, towers, batch)) from error
    finally:
        for hook in hooks:
            hook.remove()
    return trace.events


def _explained(error: BaseException, towers: Towers, batch: Batch) -> str:
    size = "x".join(str(edge) for edge in batch.pixels.shape[2:])
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    tokens = batch.tokens.shape[1]
    what = f"model={towers.name}: a trial step on {len(batch)} pictures of {size} and {tokens} tokens"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return f"{what} does not fit in memory: take a smaller model"
    return f"{what} fails ({first[:200]}): check model.image_size, model.context_length and the towers"


def _moments(few: list[tuple[int, int]], more: list[tuple[int, int]]) -> tuple[Moment, ...]:
    """What is fixed and what grows with the pairs, at each event; of steps that differ, of their peaks."""
    if len(few) != len(more):
        peaks = [max(live for live, _ in events) for events in (few, more)]
        few, more = [(peaks[0], few[-1][1])], [(peaks[1], more[-1][1])]
    moments = []
    for (small, gradients), (large, _) in zip(few, more, strict=True):
        slope = max(0.0, (large - small) / (_MORE - _FEW))
        moments.append(Moment(max(0.0, small - slope * _FEW), slope, gradients))
    return tuple(moments)


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)
