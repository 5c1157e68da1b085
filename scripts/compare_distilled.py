"""The line that tells what a distilled student costs and gives: its int8 folder against its teacher in fp32.

    python scripts/compare_distilled.py outputs/teacher/model student-int8 --task lc25000 --pictures patches/

The student runs in what of onnxruntime and OpenVINO is faster here, the teacher in torch; accuracy and speed
are of these two. Both are measured on the task by `pathclip evaluate`; the loss of accuracy is paired, with a
95 % interval over groups. Images per second are taken in one process in turn, after the runtime was chosen,
so that what else the machine does meets both: of the encoder on pixels that are ready, and of the whole way
from the picture's file, decoding with all cores. Shown is the median over the rounds, and of the ratio also
the least and the largest. Prints a Markdown table on stdout; below it the speed beside the teacher in ONNX,
if --teacher-onnx names a folder that `pathclip export keep_fp32=true` made of it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

import pathclip
from pathclip.errors import DataError, PathclipError
from pathclip.evaluate.comparison.compare import Row, compare
from pathclip.evaluate.comparison.saved_report import SavedReport, open_report
from pathclip.evaluate.evaluate import evaluate
from pathclip.launch import compose
from pathclip.runtime.cores import available_cores
from pathclip.runtime.cpu import cpu
from pathclip.runtime.encoder import Encoder
from pathclip.runtime.images import find_images, read_batches
from pathclip.runtime.openvino_encoder import is_installed

HEAD = (
    "| CPU | task | teacher fp32 (torch) | student int8 | encoder, images/s | ratio | from file, images/s "
    "| ratio | balanced accuracy | loss [95 % CI] | n (groups) |"
)


@dataclass(frozen=True)
class Speeds:
    """Images per second of each round: teacher and student, [rounds] each."""

    teacher: np.ndarray
    student: np.ndarray

    @property
    def cells(self) -> str:
        """Both medians, and the median of the ratio with its range."""
        ratio = self.student / self.teacher
        both = f"{np.median(self.teacher):.0f} → {np.median(self.student):.0f}"
        return f"{both} | {np.median(ratio):.2f} × ({ratio.min():.2f}–{ratio.max():.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", help="model folder with torch weights")
    parser.add_argument("student", help="model folder with int8, as `pathclip export` writes it")
    parser.add_argument("--teacher-onnx", help="the teacher as ONNX in fp32, a second one to be faster than")
    parser.add_argument("--task", default="lc25000", help="of `pathclip evaluate`, several with commas")
    parser.add_argument("--pictures", required=True, type=Path, help="folder of pictures to time with")
    parser.add_argument("--out", default="outputs/compare_distilled", help="folder for the two reports")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4, help="in each round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("overrides", nargs="*", help="of both evaluations, after --")
    try:
        print(report(parser.parse_intermixed_args()))
    except PathclipError as error:
        print(f"compare_distilled.py: {error}", file=sys.stderr)
        return 1
    return 0


def report(given: argparse.Namespace) -> str:
    """Chooses the student's runtime, measures speed, then accuracy; the table."""
    threads = available_cores()
    teacher = pathclip.load(given.teacher, runtime="torch", precision="fp32", threads=threads)
    students = [
        pathclip.load(given.student, runtime=runtime, precision="int8", threads=threads)
        for runtime in ("onnx", *(("openvino",) if is_installed() else ()))
    ]
    found = find_images(given.pictures) if given.pictures.is_dir() else []
    if not found:
        raise DataError(f"--pictures: {given.pictures} holds no pictures")
    files = list(islice(cycle(found), given.batch_size * given.batches))
    student = fastest(students, files, given)
    encoders = [teacher, student]
    if given.teacher_onnx:
        encoders.append(pathclip.load(given.teacher_onnx, runtime="onnx", precision="fp32", threads=threads))
    encoding, whole = (
        rounds([kind(one, files, given) for one in encoders], len(files), given.rounds)
        for kind in (ready, from_files)
    )
    shown = table(
        f"{cpu().name}, {threads} core{'s' if threads > 1 else ''}",
        (teacher, student),
        Speeds(encoding[0], encoding[1]),
        Speeds(whole[0], whole[1]),
        accuracy(given, student.runtime),
    )
    if given.teacher_onnx:
        shown += second_baseline(Speeds(encoding[2], encoding[1]), Speeds(whole[2], whole[1]))
    return shown


def fastest(students: Sequence[Encoder], files: Sequence[Path], given: argparse.Namespace) -> Encoder:
    """The student in its fastest runtime; these timings serve the choice alone."""
    if len(students) == 1:
        return students[0]
    speeds = rounds([ready(one, files, given) for one in students], len(files), given.rounds)
    return students[int(np.argmax(np.median(speeds, axis=1)))]


def second_baseline(encoding: Speeds, whole: Speeds) -> str:
    """The student beside the teacher as onnxruntime runs it in fp32."""
    figures = [one.cells.replace(" | ", " images/s, ") for one in (encoding, whole)]
    return f"\n\nAgainst the teacher in fp32 by onnxruntime: encoder {figures[0]}; from file {figures[1]}."


def ready(encoder: Encoder, files: Sequence[Path], given: argparse.Namespace) -> Callable[[], Any]:
    """Encoding alone, of pixels in the encoder's size."""
    (batch,) = read_batches(
        files, preprocess=encoder.preprocess, batch_size=len(files), workers=available_cores()
    )
    return lambda: encoder.encode_images(batch.pixels, batch_size=given.batch_size)


def from_files(encoder: Encoder, files: Sequence[Path], given: argparse.Namespace) -> Callable[[], Any]:
    """Reading, decoding, resizing and encoding."""

    def run() -> None:
        for batch in read_batches(
            files, preprocess=encoder.preprocess, batch_size=given.batch_size, workers=available_cores()
        ):
            encoder.encode_images(batch.pixels, batch_size=given.batch_size)

    return run


def rounds(encoders: Sequence[Callable[[], Any]], images: int, number: int) -> np.ndarray:
    """Images per second, [encoders, rounds], in turn; a first round warms up and is not counted."""
    speeds = np.zeros((len(encoders), number))
    for turn in range(-1, number):
        for row, run in enumerate(encoders):
            began = time.perf_counter()
            run()
            if turn >= 0:
                speeds[row, turn] = images / (time.perf_counter() - began)
    return speeds


def accuracy(given: argparse.Namespace, runtime: str) -> list[Row]:
    """Zero-shot figures of both on the same pictures, student minus teacher; the student in this runtime."""
    reports = []
    for role, folder, how in (
        ("teacher", given.teacher, ["runtime=torch", "precision=fp32"]),
        ("student", given.student, [f"runtime={runtime}", "precision=int8"]),
    ):
        out = f"{given.out}/{role}"
        task = given.task if "," not in given.task else f"[{given.task}]"
        own = [f"model={folder}", f"task={task}", "measure=[]", f"out={out}", *how]
        with contextlib.redirect_stdout(sys.stderr):
            evaluate(compose("evaluate", [*own, *given.overrides]))
        reports.append(without_precision(open_report(out)))
    return [row for row in compare(reports).rows if row.figure == "balanced_accuracy"]


def without_precision(one: SavedReport) -> SavedReport:
    """The report with answers that those of another precision are compared with."""
    return replace(
        one,
        answers=[replace(answers, about={**answers.about, "precision": ""}) for answers in one.answers],
        scores=[{**score, "context": {**score["context"], "precision": ""}} for score in one.scores],
    )


def table(
    machine: str, encoders: tuple[Encoder, Encoder], encoding: Speeds, whole: Speeds, rows: Sequence[Row]
) -> str:
    """A Markdown row for each task and variant."""
    teacher, student = encoders
    names = (
        f"{teacher.name}, {teacher.preprocess.size[0]} px",
        f"{student.name}, {student.preprocess.size[0]} px ({student.runtime})",
    )
    lines = [HEAD, "|---" * 11 + "|"]
    for row in rows:
        lost = row.difference
        cells = [
            machine,
            f"{row.what.task}, {row.what.variant}",
            *names,
            encoding.cells,
            whole.cells,
            f"{row.values[0].value:.3f} → {row.values[1].value:.3f}",
            f"{0.0 - lost.value:+.3f} [{0.0 - lost.high:+.3f}, {0.0 - lost.low:+.3f}]",
            f"{row.n} ({row.groups})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
