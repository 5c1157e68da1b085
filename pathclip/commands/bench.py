"""`pathclip bench`: how fast a model folder runs here, by every runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.commands import flags
from pathclip.runtime.libraries import versions

if TYPE_CHECKING:
    from pathclip.model_folder import ModelFolder
    from pathclip.runtime.bench import Bench, Contender, What
    from pathclip.runtime.cpu import Cpu

EXAMPLES = """
pathclip bench model-int8
pathclip bench model-int8 --threads 4 --seconds 5
pathclip bench model-int8 --text --json
"""
LIBRARIES = ("torch", "onnxruntime", "openvino")
_NOTABLE = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "amx_bf16"),
    *("asimddp", "i8mm", "bf16"),
)


@dataclass(frozen=True, slots=True)
class _Run:
    """What was measured, and of what."""

    folder: ModelFolder
    machine: Cpu
    threads: int
    what: What
    result: Bench
    macs: int | None
    uncounted: str  # why `macs` is None


def main(verb: str, arguments: Sequence[str]) -> int:
    """Runs the verb; returns the exit status."""
    return flags.run(verb, arguments, command, EXAMPLES)


def command(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    threads: flags.Threads = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=600, help="For each runtime and size of batch.")
    ] = 2.0,
    text: Annotated[bool, typer.Option("--text", help="Time the text tower instead.")] = False,
    as_json: flags.Json = False,
) -> int:
    """Times the image tower by torch, onnxruntime and OpenVINO in turn, in fp32, bf16 and int8.

    Each runtime has a process of its own, and only one works at a time. Preprocessing is left out. What
    cannot run here is listed with the reason; `pathclip export` keeps fp32 and torch weights with
    keep_fp32=true keep_torch=true. The measurement is kept: runtime=auto goes by it from then on.
    """
    from pathclip.model_folder import open_model_folder
    from pathclip.runtime.bench import bench
    from pathclip.runtime.clock import with_measured_clock
    from pathclip.runtime.cores import available_cores
    from pathclip.runtime.cpu import cpu
    from pathclip.runtime.macs import count_macs

    opened, used = open_model_folder(folder, verify=False), threads or available_cores()
    what: What = "texts" if text else "images"
    result = bench(opened, cpu(), used, seconds, what)
    machine = with_measured_clock(cpu())
    tower = what.removesuffix("s")
    macs, uncounted = count_macs(opened, tower)
    run = _Run(opened, machine, used, what, result, macs, uncounted)
    chosen = None if text else _choose(run)
    print(
        json.dumps(_document(run, chosen), ensure_ascii=False, indent=2) if as_json else _table(run, chosen)
    )
    return 0


def _choose(run: _Run) -> dict[str, Any] | None:
    """What `auto` takes from now on, in the precision that it takes; keeps the measurement."""
    from pathclip.runtime import choice
    from pathclip.runtime.bench import COMPARED_AT, Contender
    from pathclip.runtime.encoder import available_precisions

    precision = next(iter(available_precisions(run.folder)), None)
    if precision is None:
        return None
    timed = {name: run.result.timed.get(Contender(name, precision)) for name in choice.ENCODERS}
    measured = {
        name: choice.Measured(one.opening, one.rate(COMPARED_AT)) for name, one in timed.items() if one
    }
    if not measured:
        return None
    if len(measured) == len(choice.ENCODERS):
        choice.keep(choice.key_of(run.folder, precision, run.threads), measured)
    asked = choice.worth_asking(run.machine)
    taken = choice.faster(measured) if asked and "onnx" in measured else "onnx"
    return {"runtime": taken, "precision": precision, "by": "measured" if asked else "processor"}


def _document(run: _Run, chosen: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "model": {"name": run.folder.card.get("name"), "hash": run.folder.hash},
        "what": run.what,
        "macs": run.macs,
        "macs_missing": run.uncounted or None,
        "threads": run.threads,
        "machine": {
            "cpu": run.machine.name,
            "features": sorted(run.machine.features),
            "cores": run.machine.cores,
            "int8_operations_per_second": run.machine.int8_peak or None,
            "estimated_from": run.machine.how,
            "libraries": versions(*LIBRARIES),
        },
        "runtimes": [_row(run, one) for one in run.result.timed],
        "missing": [
            {"runtime": one.runtime, "precision": one.precision, "reason": reason}
            for one, reason in run.result.missing.items()
        ],
        "auto": chosen,
    }


def _row(run: _Run, one: Contender) -> dict[str, Any]:
    """Of one runtime, in SI units; None for what is not known."""
    from statistics import median

    from pathclip.runtime.bench import COMPARED_AT, REFERENCE

    timed, reference = run.result.timed[one], run.result.timed.get(REFERENCE)
    return {
        "runtime": one.runtime,
        "precision": one.precision,
        "per_second": {str(batch): round(timed.rate(batch), 2) for batch in timed.rates},
        "per_second_range": {
            str(batch): [round(min(rates), 2), round(max(rates), 2)] for batch, rates in timed.rates.items()
        },
        "times_torch_fp32": round(timed.ratio(reference), 3) if reference else None,
        "latency_p50": timed.latency(50),
        "latency_p99": timed.latency(99),
        "calls": len(timed.latencies),
        "peak_bytes": timed.peak,
        "opening": timed.opening,
        "joules": median(timed.joules) if timed.joules else None,
        "of_peak": _of_peak(run, one, timed.rate(COMPARED_AT)),
    }


def _of_peak(run: _Run, one: Contender, rate: float) -> float | None:
    """Share of the processor's estimated peak of this kind of numbers; None where either is unknown."""
    from pathclip.runtime.macs import float_peak

    peak = run.machine.int8_peak if one.precision == "int8" else float_peak(run.machine)
    peak *= min(1.0, run.threads / run.machine.cores)
    if not peak or run.macs is None or one.precision == "bf16":  # whose peak differs from maker to maker
        return None
    return round(rate * run.macs * 2 / peak, 4)


def _table(run: _Run, chosen: Mapping[str, Any] | None) -> str:
    rows = [_row(run, one) for one in run.result.timed]
    batches = [*rows[0]["per_second"]]
    lines = [*_head(run), ""]
    lines.append(
        f"{'':<17}" + f"{run.what + ' per second, batch of':^{8 * len(batches)}}"
        f"{'times':>8}{'ms of one':>16}{'calls':>7}{'memory':>8}{'start':>7}{'J per':>8}{'of':>6}"
    )
    lines.append(
        f"{'':<17}" + "".join(f"{batch:>8}" for batch in batches) + f"{'torch':>8}{'p50':>8}{'p99':>8}"
        f"{'':>7}{'MB':>8}{'s':>7}{run.what[:-1]:>8}{'peak':>6}"
    )
    for one, row in zip(run.result.timed, rows, strict=True):
        lines.append(
            f"{one!s:<17}"
            + "".join(f"{rate:>8.1f}" for rate in row["per_second"].values())
            + _cell(row["times_torch_fp32"], 8, ".2f")
            + f"{row['latency_p50'] * 1e3:>8.1f}{row['latency_p99'] * 1e3:>8.1f}{row['calls']:>7}"
            + _cell(row["peak_bytes"] and row["peak_bytes"] / 1e6, 8, ".0f")
            + f"{row['opening']:>7.2f}"
            + _cell(row["joules"], 8, ".3f")
            + _cell(row["of_peak"], 6, ".0%")
        )
    lines += [f"{one!s:<17} not run: {reason}" for one, reason in run.result.missing.items()]
    return "\n".join([*lines, "", *_foot(run, chosen)])


def _head(run: _Run) -> list[str]:
    machine = run.machine
    notable = [name for name in _NOTABLE if name in machine.features]
    macs = f", {run.macs / 1e9:.2f} G products each" if run.macs else ""
    return [
        f"{run.folder.card.get('name')} ({run.folder.hash[:12]}): {run.what}{macs}",
        f"{machine.name}, {machine.cores} cores, {run.threads} threads; {' '.join(notable)}",
        ", ".join(f"{name} {version}" for name, version in versions(*LIBRARIES).items()),
    ]


def _foot(run: _Run, chosen: Mapping[str, Any] | None) -> list[str]:
    lines = ["Medians of rounds in turn; 'times torch' at a batch of 16, within rounds. '-': not known."]
    if run.machine.int8_peak and run.macs:
        lines.append(f"Peak of int8, estimated: {run.machine.how}.")
    elif run.macs is None:
        lines.append(f"Products are not counted: {run.uncounted}.")
    if not any(timed.joules for timed in run.result.timed.values()):
        lines.append("Energy: not told by this machine.")
    if chosen:
        why = "" if chosen["by"] == "measured" else ", as OpenVINO has no fast int8 on this processor"
        lines.append(f"runtime=auto takes {chosen['runtime']} in {chosen['precision']}{why}.")
    return lines


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{form}}"
