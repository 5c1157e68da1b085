"""One step on one GPU by the size of its batch: pairs per second and memory; for docs/scaling.md.

    python scripts/bench_step.py --model ViT-B-32 --batch 1024 --compile
    python scripts/bench_step.py --model ViT-B-32 --batch 8192 --micro-batch 1024 --compile

Both towers, the loss over the whole batch, backward and a fused AdamW, under bf16, on noise that lies on the
device: no loader, no copies. Texts fill the context length. Prints one line of Markdown for each batch.
"""

from __future__ import annotations

import argparse
import time

import open_clip
import torch
from torch import Tensor
from torch.nn import functional

from pathclip.model.losses import ClipLoss, Features
from pathclip.model.statistics import move_once
from pathclip.train.micro_batches import in_micro_batches
from pathclip.train.task import sum_of

WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32", help="open_clip's name")
    parser.add_argument("--batch", type=int, nargs="+", default=[1024])
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    print(f"{given.model} on {name}, bf16{', compiled' if given.compile else ''}\n")
    print("| batch | micro_batch | pairs/s | step | memory of the GPU |\n|---|---|---|---|---|")
    for batch in given.batch:
        seconds, memory = measure(given, batch)
        print(
            f"| {batch:,} | {given.micro_batch or 'all'} | {batch / seconds:,.0f} | "
            f"{1000 * seconds:,.0f} ms | {memory / 1e9:.1f} GB |",
            flush=True,
        )


def measure(given: argparse.Namespace, batch: int) -> tuple[float, int]:
    """Seconds of a step, and the most bytes that torch held on the GPU."""
    model = open_clip.create_model(given.model, pretrained=None).to(given.device).train()
    move_once(model)
    if given.compile:
        model.visual.compile()
        model.transformer.compile()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)
    loss = ClipLoss()
    edge = model.visual.image_size
    edge = edge if isinstance(edge, int) else edge[0]
    pixels = torch.randn(batch, 3, edge, edge, device=given.device, dtype=torch.bfloat16)
    tokens = torch.randint(1, 49_000, (batch, model.context_length), device=given.device)
    tokens[:, -1] = 49_407
    own = torch.arange(batch, device=given.device)

    def encode(pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(given.device, torch.bfloat16):
            image, text = model.encode_image(pixels), model.encode_text(tokens)
        return functional.normalize(image.float(), dim=-1), functional.normalize(text.float(), dim=-1)

    def step() -> None:
        optimizer.zero_grad()
        image, text = in_micro_batches(encode, (pixels, tokens), given.micro_batch)
        sum_of(loss(Features(image, text, model.logit_scale.exp(), own, own))).backward()
        optimizer.step()
        if given.device == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        step()
    began = time.perf_counter()
    for _ in range(given.steps):
        step()
    memory = torch.cuda.max_memory_allocated() if given.device == "cuda" else 0
    return (time.perf_counter() - began) / given.steps, memory


if __name__ == "__main__":
    main()
