"""Shows what a tower of an int8 folder says on a CPU without VNNI, which an emulator stands in for.

    python scripts/check_saturation.py model-int8 --shards shards/val --pictures 4

The tower runs here and under `qemu-x86_64 -cpu Haswell` (AVX2 without VNNI): as it is, with weights of 7
bits, and with the same weights in 8 bits, made on the fly. Both graphs say the same, so what they answer
differs only by the CPU's arithmetic. For each: cosine between the two CPUs, cosine to fp32 on each (where the
folder holds the fp32 tower), and the share of the layers' outputs off the integer reference on each.

Needs qemu-user (Debian and Ubuntu: apt-get install qemu-user). Other CPUs of qemu: `qemu-x86_64 -cpu help`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

EMULATOR = "qemu-x86_64"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an exported model folder")
    parser.add_argument("--tower", choices=("image", "text"), default="image")
    parser.add_argument("--shards", type=Path, help="where pairs come from; default: smooth random pictures")
    parser.add_argument("--pictures", type=int, default=4, help="or captions")
    parser.add_argument("--layers", type=int, default=6, help="layers held against the integer reference")
    parser.add_argument("--cpu", default="Haswell", help="what the emulator plays")
    parser.add_argument("--run", type=Path, nargs=3, help=argparse.SUPPRESS)  # graph, input, result
    arguments = parser.parse_args()
    if arguments.run:
        run(*arguments.run, layers=arguments.layers)
        return
    if shutil.which(EMULATOR) is None:
        sys.exit(f"{EMULATOR} is not installed: apt-get install qemu-user")
    report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Prints the table."""
    from pathclip.export.gate.saturation import in_eight_bits, saturation
    from pathclip.model_folder import open_model_folder
    from pathclip.runtime.cpu import cpu

    folder = open_model_folder(arguments.folder)
    graphs = {"as exported": folder.file(f"onnx/{arguments.tower}_int8.onnx")}
    with tempfile.TemporaryDirectory(prefix="pathclip-saturation-") as name:
        work = Path(name)
        graphs["in 8 bits"] = in_eight_bits(graphs["as exported"], work / "eight_bits.onnx")
        given = pictures(arguments, folder) if arguments.tower == "image" else captions(arguments, folder)
        np.save(work / "input.npy", given)
        exact = None
        if folder.has(f"onnx/{arguments.tower}_fp32.onnx"):
            exact, _ = measured([], folder.file(f"onnx/{arguments.tower}_fp32.onnx"), work, 0)
        there = f"{EMULATOR} -cpu {arguments.cpu}"
        print(f"{arguments.tower} tower, {len(given)} inputs; here: {cpu().name}; there: {there}")
        emulated = [EMULATOR, "-cpu", arguments.cpu]
        for title, graph in graphs.items():
            here, off_here = measured([], graph, work, arguments.layers)
            away, off_there = measured(emulated, graph, work, arguments.layers)
            layers = saturation(graph)
            unsafe = sum(not layer.safe for layer in layers)
            print(f"weights {title}: {unsafe} of {len(layers)} layers may saturate")
            print(f"  cosine here to there: {_cosine(here, away)}")
            if exact is not None:
                print(f"  cosine to fp32: here {_cosine(here, exact)}; there {_cosine(away, exact)}")
            print(
                f"  outputs off the integer reference: here {off_here:.2%}; there {off_there:.2%}", flush=True
            )


def pictures(arguments: argparse.Namespace, folder) -> np.ndarray:
    """Normalised pictures float32 [n, 3, h, w]."""
    from PIL import Image

    from pathclip.export.calibration.samples import draw_pairs
    from pathclip.runtime.images import open_image
    from pathclip.runtime.preprocess import Preprocess

    preprocess = Preprocess.from_card(folder.card["preprocess"])
    if arguments.shards is not None:
        found = [open_image(pair.image) for pair in draw_pairs([arguments.shards], arguments.pictures)]
    else:
        rng = np.random.default_rng(0)
        small = rng.normal((190, 120, 170), (30, 50, 30), (arguments.pictures, 8, 8, 3)).clip(0, 255)
        found = [Image.fromarray(one.astype(np.uint8)).resize((512, 512)) for one in small]
    return preprocess.normalise(np.stack([preprocess.pixels(image) for image in found]))


def captions(arguments: argparse.Namespace, folder) -> np.ndarray:
    """Tokens int64 [n, context length] of captions, or of names of tissues."""
    from pathclip.export.calibration.samples import draw_pairs
    from pathclip.runtime.tokenizer import Tokenizer

    tissues = ("colon", "lung", "breast", "skin", "liver", "kidney", "prostate", "brain")
    texts = [f"a histopathology image of {name} tissue" for name in tissues[: arguments.pictures]]
    if arguments.shards is not None:
        texts = [pair.text for pair in draw_pairs([arguments.shards], arguments.pictures)]
    return Tokenizer.of_folder(folder)(texts)


def measured(emulator: list[str], graph: Path, work: Path, layers: int) -> tuple[np.ndarray, float]:
    """Embeddings, and the share of outputs off the reference, by a process of its own."""
    result = work / "result.npz"
    own = [sys.executable, str(Path(__file__).resolve()), "-", "--layers", str(layers), "--run"]
    command = [*emulator, *own, str(graph), str(work / "input.npy"), str(result)]
    # The emulator warns in every thread of what the CPU it plays would also have.
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    with np.load(result) as found:
        return found["rows"], float(found["off"])


def run(graph: Path, given: Path, result: Path, layers: int) -> None:
    """One measurement, on whatever CPU this process sees."""
    from pathclip.export.gate.reference import check, supported, worst_inputs
    from pathclip.export.graphs.qdq import Graph, quantised_layers
    from pathclip.export.graphs.session import open_session

    session = open_session(graph)
    rows = session.run(None, {session.get_inputs()[0].name: np.load(given)})[0]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    whole = Graph(graph)
    found = [layer for layer in quantised_layers(whole) if supported(layer)]
    chosen = np.unique(np.linspace(0, len(found) - 1, min(layers, len(found))).astype(int))
    checks = [check(whole, found[place], list(worst_inputs(found[place]))) for place in chosen]
    outputs = sum(one.outputs for one in checks)
    np.savez(result, rows=rows, off=sum(one.differ for one in checks) / max(outputs, 1))


def _cosine(first: np.ndarray, second: np.ndarray) -> str:
    cosine = (first * second).sum(axis=1)
    return f"mean {cosine.mean():.6f}, least {cosine.min():.6f}"


if __name__ == "__main__":
    main()
