"""Images per second of a training step with and without `keep_freed_memory`, interleaved.

python scripts/bench_allocator.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time


def measure(keep: bool, batch: int = 32, size: int = 128, steps: int = 6) -> None:
    import torch

    from pathclip.model.build import from_towers
    from pathclip.train.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    tower = from_towers(lock=["text"]).model.visual.train()
    rates = []
    for _ in range(steps):
        pixels = torch.randn(batch, 3, size, size)
        start = time.process_time()
        tower(pixels).pow(2).sum().backward()
        rates.append(batch / (time.process_time() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"rate": statistics.median(rates[1:]), "peak_gb": peak}))


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1] == "keep")
        return
    results: dict[str, list[dict[str, float]]] = {"default": [], "keep": []}
    for _ in range(3):
        for kind, rows in results.items():
            run = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True)
            rows.append(json.loads(run.stdout.splitlines()[-1]))
    from pathclip.runtime.cpu import cpu

    print(f"{cpu().name}: images per second of processor time")
    for kind, rows in results.items():
        rate, peak = (statistics.median(row[key] for row in rows) for key in ("rate", "peak_gb"))
        print(f"{kind:8} {rate:6.1f} images/s   {peak:.2f} GB")


if __name__ == "__main__":
    main()
