"""The report of an export: `report.html`, which needs nothing else, and `report.json` with every figure."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from pathclip import __version__, atomic
from pathclip.evaluate import reporting
from pathclip.evaluate.reporting.provenance import package_versions
from pathclip.evaluate.reporting.report import html_table, without_nan
from pathclip.export.gate.gate import TRAINED_ON, Gate
from pathclip.export.gate.layers import LayerError
from pathclip.export.gate.verdict import Line
from pathclip.export.graphs.speed import EQUALLY_FAST
from pathclip.export.reporting.plots import decibel_text, layer_plot, pareto_plot
from pathclip.export.reporting.report_sets import PROMPTS_CHOSE, Sets, captions_said, shared_said, source_said
from pathclip.export.search.search import Chosen
from pathclip.model_folder import ModelFolder
from pathclip.page import Section, page
from pathclip.runtime.cpu import Cpu, cpu

SCHEMA_VERSION = 1
MOST_SENSITIVE = 10  # layers in the table; report.json has all
MORE_PACKAGES = ("onnx", "nncf", "openvino")
FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512vnni", "amx_int8"),
    *("asimddp", "i8mm"),
)
_HASH = 16  # digits that are shown


@dataclass(frozen=True, slots=True)
class Exported:
    """What a report tells.

    Attributes:
        folder: the model that was exported.
        out: where its int8 form goes.
        gate: int8 against fp32.
        chosen: tower → the search.
        layers: tower → error of each layer, in graph order.
        sets: the data.
        tolerance: fidelity that could be given up for speed.
        seed: of the draw.
    """

    folder: ModelFolder
    out: Path
    gate: Gate
    chosen: Mapping[str, Chosen]
    layers: Mapping[str, Sequence[LayerError]]
    sets: Sets
    tolerance: float
    seed: int


def write_report(folder: Path, exported: Exported) -> Path:
    """Writes `report.json` and `report.html`; each is replaced at once.

    Args:
        folder: where they go.
        exported: what to tell.

    Returns:
        The path of `report.html`.
    """
    styles = (Path(reporting.__file__).with_name("report.css"), Path(__file__).with_name("export.css"))
    style = "".join(file.read_text(encoding="utf-8") for file in styles)
    name = str(exported.folder.card.get("name", "model"))
    atomic.write_json(folder / "report.json", without_nan(report_json(exported)))
    html = page(f"{name}: fp32 to int8", _sections(exported), _lead(exported), style)
    atomic.write_text(folder / "report.html", html)
    return folder / "report.html"


def report_json(exported: Exported) -> dict[str, Any]:
    """Every figure of the report."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": exported.folder.card.get("name"), "hash": exported.folder.hash},
        "says": sentences(exported),
        "gate": exported.gate.as_json(),
        "tolerance": exported.tolerance,
        "towers": {tower: _tower_json(exported, tower) for tower in exported.chosen},
        "data": {**exported.sets.as_json(), "seed": exported.seed},
        "machine": machine(cpu()),
        "versions": versions(),
    }


def sentences(exported: Exported) -> list[str]:
    """What it comes to, in plain words: the gate, the size, and the speed of each tower."""
    gate = exported.gate
    said = [_verdict_sentence(gate)]
    if (size := _line(gate, "size, int8 / fp32")) and size.value:
        said.append(f"The int8 towers take {size.value:.0%} of the bytes of fp32 ({size.note}).")
    for tower, chosen in exported.chosen.items():
        line = _line(gate, f"{tower} speed, int8 / fp32")
        speed = line.value if line and line.value is not None else chosen.trial.speed
        said.append(
            f"The {tower} tower runs {speed:.2f} times as fast as fp32 in onnxruntime on this CPU."
            if speed >= 1 + EQUALLY_FAST
            else f"The {tower} tower is no faster than fp32 on this CPU ({speed:.2f} times); "
            "the gain is size alone."
        )
    return said


def _verdict_sentence(gate: Gate) -> str:
    """Passed or failed, and how much of it was not proven or not measured."""
    failed = sum(line.passed is False for line in gate.lines)
    unproven = len(gate.not_proven)
    missing = len(gate.not_measured)
    open_ = [
        f"{n} of its lines {'is' if n == 1 else 'are'} not {what}"
        for n, what in ((unproven, "proven"), (missing, "measured"))
        if n
    ]
    said = "The gate passed" if gate.passed else f"The gate failed: {failed} of its limits do not hold"
    return f"{said}; {' and '.join(open_)}." if open_ else f"{said}."


def machine(found: Cpu) -> dict[str, Any]:
    """The processor and the system, as a reader needs them to doubt a speed."""
    return {
        "cpu": found.name,
        "features": [name for name in FEATURES if name in found.features],
        "cores": found.cores,
        "threads": f"as onnxruntime chooses among {found.cores} cores",
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of what a figure may depend on."""
    found = {"pathclip": __version__, "python": platform.python_version(), **package_versions()}
    for name in MORE_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _tower_json(exported: Exported, tower: str) -> dict[str, Any]:
    chosen = exported.chosen[tower]
    return {
        **exported.gate.details["recipes"][tower],
        "front": chosen.front(),
        "failed": dict(chosen.failed),
        "seconds": round(chosen.seconds, 1),
        "sensitivities": [asdict(one) for one in chosen.sensitivities],
        "layers_to_measure": chosen.layers,
        "layer_errors": [asdict(one) for one in exported.layers[tower]],
    }


def _lead(exported: Exported) -> str:
    verdict, *others = sentences(exported)
    kind = "passed" if exported.gate.passed else "failed"
    failed = "" if exported.gate.passed else f'<p class="remark">{escape(exported.gate.failures())}</p>'
    rest = f'<p class="lead">{escape(" ".join(others))}</p>'
    return f'<p class="verdict {kind}">{escape(verdict)}</p>{failed}{rest}'


def _sections(exported: Exported) -> list[Section]:
    sections = [_gate_section(exported.gate, exported.sets)]
    for tower, chosen in exported.chosen.items():
        sections.append(_search_section(tower, chosen, exported.tolerance))
        sections.append(_layer_section(tower, chosen, exported.layers[tower]))
    sections.append(_provenance_section(exported))
    return sections


def _gate_section(gate: Gate, sets: Sets) -> Section:
    rows = [
        [
            escape(line.name),
            _verdict(line),
            "not measured" if line.value is None else _figure(line.value),
            "" if line.low is None or line.high is None else f"{_figure(line.low)} to {_figure(line.high)}",
            _limit(line),
            str(line.n or ""),
            escape(line.note),
        ]
        for line in gate.lines
    ]
    table = html_table(["", "", "value", "95 % interval", "limit", "n", "note"], rows, plain=2)
    caption = (
        "On held-out pairs whose groups no range was read off and no recipe chosen by"
        f"{': ' + TRAINED_ON if sets.trained_on else ''}; speeds are for information. {captions_said(gate)}"
    ).strip()
    return Section("int8 against fp32", f'<div class="gate">{table}</div>', caption)


def _search_section(tower: str, chosen: Chosen, tolerance: float) -> Section:
    front = chosen.front()
    rows = []
    for number, trial in enumerate(chosen.trials):
        found, mark = trial.fidelity, " taken" if number == chosen.number else ""
        rows.append(
            [
                f'<span class="{mark.strip()}">{number + 1}{mark}</span>',
                escape(trial.stage),
                escape(trial.describe()),
                f"{found.value:.5f}" + (" ●" if number in front else ""),
                f"{found.moved:.4f}",
                f"{found.recall_lost:+.4f}",
                f"{found.cosine:.5f}",
                f"{found.worst:.5f}",
                f"{found.agreement:.3f}",
                f"{trial.speed:.2f} ×",
                f"{trial.size / 1e6:.1f}",
            ]
        )
    head = [
        *("no.", "stage", "recipe", "fidelity", "answers moved", "R@10 lost", "cosine", "worst 1 %"),
        *("same answer", "speed", "MB"),
    ]
    failed = "".join(
        f'<p class="remark">Could not be made: {escape(recipe)}. {escape(why)}</p>'
        for recipe, why in chosen.failed.items()
    )
    caption = (
        f"Taken: {chosen.trial.describe()}. It is the fastest whose fidelity is within {tolerance:g} of the "
        "best one's; within 3 % of speed the most faithful. Fidelity is 1 minus the mean of four losses on "
        "the selection set: answers moved, R@10 lost, 1 - mean cosine and 1 - worst 1 % of it. The axis "
        "is logarithmic in what is lost; ● and the dashed line are the Pareto front, grey is beaten. "
        f"{len(chosen.trials)} candidates in {chosen.seconds:.0f} s."
    )
    plot = pareto_plot(chosen.trials, front, chosen.number)
    table = f'<div class="recipes">{html_table(head, rows, plain=3)}</div>'
    return Section(f"Recipes of the {tower} tower", plot + table + failed, caption)


def _layer_section(tower: str, chosen: Chosen, layers: Sequence[LayerError]) -> Section:
    kept = [
        [escape(layer.name), layer.op_type, escape(layer.reason), decibel_text(layer.snr_db)]
        for layer in layers
        if layer.kept_fp32
    ]
    html = layer_plot(layers) if layers else ""
    if kept:
        html += html_table(["in fp32", "operator", "why", "signal / noise"], kept, plain=3)
    if chosen.sensitivities:
        rows = [
            [escape(one.name), one.op_type, f"{one.cost:.6f}"]
            for one in chosen.sensitivities[:MOST_SENSITIVE]
        ]
        table = html_table(["quantised alone", "operator", "cosine lost"], rows, plain=2)
        measured = f"{len(chosen.sensitivities)} of {chosen.layers} measured"
        html += f"<details><summary>What single layers cost ({measured})</summary>{table}</details>"
    known = [one.snr_db for one in layers if math.isfinite(one.snr_db)]
    last = f" The last layer has {known[-1]:.1f} dB." if known else ""
    caption = (
        "Signal over noise of what each layer hands on, int8 beside fp32, with the error that came in from "
        f"the layers before: 20 dB is an error of a tenth of the signal.{last}"
        + ("" if kept else " No layer stayed in fp32.")
    )
    return Section(f"Error over the {tower} tower", html, caption)


def _provenance_section(exported: Exported) -> Section:
    data, found = exported.sets.as_json(), machine(cpu())
    shards = ", ".join(
        f"{one['folder']} {str(one['data_hash'] or 'without hash')[:_HASH]}" for one in data["shards"]
    )
    labelled = f"{data['labelled']} labelled pictures ({data['labelled_source']})" if data["labelled"] else ""
    features = ", ".join(found["features"]) or "no int8 features known"
    rows = [
        ("model", f"{exported.folder.card.get('name')}, {exported.folder.hash[:_HASH]}"),
        *((f"recipe, {tower} tower", chosen.trial.describe()) for tower, chosen in exported.chosen.items()),
        ("shards", shards),
        (
            "pairs",
            f"{data['calibration']} for ranges, {data['selection']} for the choice, {data['held_out']} held "
            f"out; {shared_said(exported.sets.shared_groups)}; seed {exported.seed}",
        ),
        *((("held out", source_said(exported.sets)),) if exported.sets.source else ()),
        *((("choice", PROMPTS_CHOSE),) if exported.sets.prompts_chose else ()),
        *((("labelled", labelled),) if labelled else ()),
        (
            "CPU",
            f"{found['cpu']}; {found['cores']} cores; {features}",
        ),
        ("threads", found["threads"]),
        ("system", found["system"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
    ]
    table = html_table(["", ""], [[escape(key), escape(str(value))] for key, value in rows], plain=2)
    return Section("Where these figures come from", table, "Hashes are SHA-256, shortened.")


def _line(gate: Gate, name: str) -> Line | None:
    return next((line for line in gate.lines if line.name == name), None)


def _figure(value: float) -> str:
    return "0" if value == 0 else f"{value:.2f}" if abs(value) > 1 else f"{value:.4f}"


def _verdict(line: Line) -> str:
    if line.passed is None:
        return ""
    return '<span class="passed">passed</span>' if line.passed else '<span class="failed">FAILED</span>'


def _limit(line: Line) -> str:
    return "" if line.threshold is None else f"{line.threshold:g}"
