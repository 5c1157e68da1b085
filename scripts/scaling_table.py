"""What a global batch costs on 1 to 256 GPUs, on paper: images and tokens per second, memory, and the config.

    python scripts/scaling_table.py --model ViT-B-32 --share 0.3
    python scripts/scaling_table.py --model ViT-L-14 --share 0.4

Counted on the real model, with tensors that have shapes and no values: floating-point operations of the
forward and backward pass (`torch.utils.flop_counter`), and the bytes that autograd keeps for each pair under
bf16. Taken as given, by flags: how fast a GPU computes and what share of that a training reaches, how fast
GPUs exchange data, how many pictures a CPU core decodes. No exchange is taken to hide behind computation.
Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

GB = 1e9
LOGIT_TABLES = 6  # of float32 that a local contrastive loss holds at once: similarities, softmax, gradients
WEIGHT_BYTES = 4 + 4 + 8 + 2  # weight, gradient, AdamW's two averages, and autocast's copy in bf16


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one pair, and of the model.

    Attributes:
        flops: forward and backward of both towers.
        activations: bytes kept between them.
        checkpointed: the same with `grad_checkpointing`: the inputs of all blocks, and one block at work.
        parameters: of both towers.
        width: of an embedding.
        tokens: of the image and of the text.
        pixels: bytes of a picture, float32.
    """

    flops: float
    activations: float
    checkpointed: float
    parameters: int
    width: int
    tokens: tuple[int, int]
    pixels: int


@dataclass(frozen=True, slots=True)
class Row:
    """A number of GPUs.

    Attributes:
        gpus: how many.
        micro_batch: pairs at a time; None for all of a GPU's.
        checkpointing: whether blocks are computed twice.
        memory: bytes of one GPU.
        compute: seconds of a step.
        exchange: seconds of a step.
    """

    gpus: int
    micro_batch: int | None
    checkpointing: bool
    memory: float
    compute: float
    exchange: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32", help="open_clip's name")
    parser.add_argument("--batch", type=int, default=32768, help="global")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument(
        "--peak", type=float, default=989.0, help="TFLOP/s of a GPU, bf16 dense; H100 SXM: 989"
    )
    parser.add_argument("--share", type=float, default=0.3, help="of the peak that a training sustains")
    parser.add_argument("--memory", type=float, default=72.0, help="GB of a GPU that may be used; H100: 80")
    parser.add_argument("--per-machine", type=int, default=8, help="GPUs of a machine")
    parser.add_argument(
        "--inside", type=float, default=450.0, help="GB/s a way, a GPU, in a machine; NVLink 4: 450"
    )
    parser.add_argument(
        "--between", type=float, default=50.0, help="GB/s a way, a GPU; InfiniBand 400 Gbit/s: 50"
    )
    parser.add_argument("--exchange-share", type=float, default=0.6, help="of those rates that is reached")
    parser.add_argument(
        "--core", type=float, default=238.0, help="pictures that a CPU core decodes in a second"
    )
    given = parser.parse_args()
    counted = count(given.model)
    print(describe(given, counted))
    print(
        "| GPUs | images/s | tokens/s | step | of it exchange | memory of a GPU | cores for each | config |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for gpus in given.gpus:
        row = place(gpus, counted, given)
        if row is None:
            print(f"| {gpus} | | | | | over {given.memory:.0f} GB at any micro_batch | | |")
            continue
        seconds = row.compute + row.exchange
        rate = given.batch / seconds
        print(
            f"| {gpus} | {rate:,.0f} | {rate * sum(counted.tokens) / 1e6:,.1f} M | {seconds:.2f} s | "
            f"{100 * row.exchange / seconds:.1f} % | {row.memory / GB:.0f} GB | "
            f"{rate / gpus / given.core:.0f} | `{config(row, given)}` |"
        )


def count(name: str) -> Counted:
    """Counts one architecture of open_clip's."""
    import open_clip

    from pathclip.model.towers import open_clip_module

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = open_clip_module(open_clip.get_model_config(name)).train()
        size = model.visual.image_size
        edge = size if isinstance(size, int) else size[0]
        activations = [_kept(model, edge, pairs) for pairs in (2, 4)]
        # Of the fused attention on a CPU torch counts nothing; of its matrix products, all.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            _loss(model, edge, 1).backward()
    cfg = open_clip.get_model_config(name)
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    tokens = ((edge // vision["patch_size"]) ** 2 + 1, text.get("context_length", 77))
    per_pair = (activations[1] - activations[0]) / 2
    inputs = 2 * (tokens[0] * vision["width"] * vision["layers"] + tokens[1] * text["width"] * text["layers"])
    return Counted(
        flops=float(flops.get_total_flops()),
        activations=per_pair,
        checkpointed=inputs + per_pair / min(vision["layers"], text["layers"]),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        width=int(cfg["embed_dim"]),
        tokens=tokens,
        pixels=4 * 3 * edge * edge,
    )


def _loss(model: torch.nn.Module, edge: int, pairs: int) -> torch.Tensor:
    """Of made-up pairs; the embeddings alone, as the loss is counted apart."""
    context = int(model.context_length)
    with torch.autocast("cpu", torch.bfloat16):
        image = model.encode_image(torch.zeros(pairs, 3, edge, edge))
        text = model.encode_text(torch.zeros(pairs, context, dtype=torch.int64))
    return image.float().sum() + text.float().sum()


def _kept(model: torch.nn.Module, edge: int, pairs: int) -> int:
    """Bytes that autograd holds between forward and backward, every storage once, weights not."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            held[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _loss(model, edge, pairs)
    return sum(held.values())


def place(gpus: int, counted: Counted, given: argparse.Namespace) -> Row | None:
    """The cheapest way that fits: as it is, with checkpointing, or in micro-batches; None if none does."""
    pairs = given.batch // gpus
    ways: list[tuple[int | None, bool]] = [(None, False), (None, True)]
    ways += [(pairs >> halvings, False) for halvings in range(1, pairs.bit_length() - 1)]
    for micro_batch, checkpointing in ways:
        memory = memory_of(pairs, micro_batch or pairs, checkpointing, counted, given)
        if memory <= given.memory * GB:
            again = micro_batch is not None or checkpointing  # one forward pass more: a third of the whole
            compute = pairs * counted.flops * (4 / 3 if again else 1)
            compute += 3 * 2 * 2 * pairs * given.batch * counted.width  # both tables, forward and backward
            seconds = compute / (given.peak * 1e12 * given.share)
            return Row(gpus, micro_batch, checkpointing, memory, seconds, exchange(gpus, counted, given))
    return None


def memory_of(
    pairs: int, at_a_time: int, checkpointing: bool, counted: Counted, given: argparse.Namespace
) -> float:
    """Bytes of one GPU."""
    activations = at_a_time * (counted.checkpointed if checkpointing else counted.activations)
    features = 2 * 2 * 4 * given.batch * counted.width  # of both towers, of all GPUs; and their gradients
    logits = LOGIT_TABLES * 4 * pairs * given.batch
    return counted.parameters * WEIGHT_BYTES + pairs * counted.pixels + activations + features + logits


def exchange(gpus: int, counted: Counted, given: argparse.Namespace) -> float:
    """Seconds of a step: features gathered and their gradients brought back, then the weights' gradients."""
    if gpus == 1:
        return 0.0
    others = (gpus - 1) / gpus
    features = 2 * (others * 2 * 4 * given.batch * counted.width)
    gradients = 2 * others * 4 * counted.parameters
    speed = given.inside if gpus <= given.per_machine else given.between
    return (features + gradients) / (speed * GB * given.exchange_share)


def config(row: Row, given: argparse.Namespace) -> str:
    """The overrides of this row."""
    machines = -(-row.gpus // given.per_machine)
    words = ["trainer=gpu", f"trainer.devices={min(row.gpus, given.per_machine)}"]
    words += [f"+trainer.num_nodes={machines}"] if machines > 1 else []
    words += ["trainer.strategy=ddp"] if row.gpus > 1 else []
    words += [f"micro_batch={row.micro_batch}"] if row.micro_batch else []
    words += ["grad_checkpointing=true"] if row.checkpointing else []
    return " ".join(words)


def describe(given: argparse.Namespace, counted: Counted) -> str:
    """What was counted and what was assumed."""
    return (
        f"{given.model}, global batch {given.batch:,}. Counted: {counted.flops / 1e9:.1f} GFLOP a pair, "
        f"forward and backward; {counted.parameters / 1e6:.0f} M parameters; "
        f"{counted.activations / 1e6:.0f} MB of activations a pair, "
        f"{counted.checkpointed / 1e6:.0f} MB with grad_checkpointing; "
        f"{counted.tokens[0]} + {counted.tokens[1]} tokens. Assumed: {given.share:.0%} of {given.peak:.0f} "
        f"TFLOP/s; {given.exchange_share:.0%} of {given.inside:.0f} GB/s in a machine of {given.per_machine} "
        f"GPUs, of {given.between:.0f} GB/s between machines; {given.core:.0f} pictures/s of a core.\n"
    )


if __name__ == "__main__":
    main()
