"""The whole chain on a synthetic feed whose truth is known, by the public functions of the stages."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

from PIL import Image

import pathclip
from pathclip import atomic
from pathclip.curate.curate import CurateResult, curate
from pathclip.evaluate.evaluate import EvaluateResult, evaluate
from pathclip.evaluate.reporting.report import (
    Section,
    bar_chart,
    line_chart,
    method_text,
    picture_grid,
    score_table,
    value_text,
    write_report,
)
from pathclip.export.export import export
from pathclip.index.build import build_index
from pathclip.launch import compose
from pathclip.runtime.classify import classify
from pathclip.runtime.preprocess import open_image
from pathclip.shards.reader import read_samples
from pathclip.shards.writer import image_suffix
from pathclip.train.run_folder import read_metrics
from pathclip.train.train import train
from pathclip.types import Hit, Score

QUERIES = (
    "lobules of mature fat",
    "keratin pearls in a squamous carcinoma",
    "dense sheets of lymphocytes",
)
SHOWN = ("balanced_accuracy", "balanced_accuracy_difference", "text_to_image_recall@10")
SECTIONS = (  # of the evaluation, that are worth a look here
    *("zero-shot classification", "confusion matrix", "wrong examples", "choices of prompts"),
    "retrieved pictures",
)


@dataclass
class Clock:
    """How long each stage took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announces the stage, runs the block, remembers its time."""
        print(f"\n— {name}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def demo(out: Path, posts: int = 1500, seed: int = 0, overrides: Sequence[str] = ()) -> int:
    """Runs the chain and writes `report.html`.

    Args:
        out: folder of everything that is written.
        posts: of the feed.
        seed: of feed and training.
        overrides: more overrides of the training, for tests.

    Returns:
        0; every failure raises.
    """
    clock = Clock()
    shards = out / "shards"
    _remove_run(out / "training", shards)
    with clock.stage("curate"):
        curated = curate(
            compose(
                "curate",
                ["source=synthetic", f"source.synthetic.posts={posts}", f"seed={seed}", f"out={shards}"],
            )
        )
    with clock.stage("train"):
        trained = train(
            compose(
                "train",
                [
                    *("experiment=demo", f"out={out / 'training'}", f"seed={seed}", "save_untrained=true"),
                    *(f"data.train={shards / 'train'}", f"data.val={shards / 'val'}", *overrides),
                ],
            )
        )
    int8 = out / "model-int8"
    with clock.stage("export"):
        export(
            compose(
                "export",
                [
                    *(f"model={trained.model}", f"out={int8}", "keep_fp32=true", f"seed={seed}"),
                    "search=false",
                    f"prompts.classes={list(_classes())}",
                ],
            )
        )
    with clock.stage("evaluate"):
        evaluated = evaluate(
            compose(
                "evaluate",
                [
                    *(f"model={int8}", f"out={out / 'evaluation'}", f"seed={seed}"),
                    *("measure=[prompts,calibration]", *_tasks(shards, trained.out)),
                ],
            )
        )
    with clock.stage("classify, index, search"):
        tiles = _unpack(shards / "test", out / "tiles")
        encoder = pathclip.load(int8)
        pair = [tiles[0], tiles[len(tiles) // 2]]
        answers = classify(encoder, [open_image(path) for path in pair], _classes())
        index = build_index(encoder, out / "tiles", out / "tiles.index")
        found = {query: index.search(encoder.encode_texts([query])[0], 5) for query in QUERIES}
    report = write_report(
        out / "report.html",
        "pathclip demo",
        [
            _funnel(curated),
            _rules(curated),
            _pairs(curated),
            _loss(trained.out),
            *_scores(evaluated),
            _answers(pair, answers),
            *_hits(found, out / "tiles"),
            _times(clock),
        ],
        lead=f"{posts} synthetic posts, drawn and written by this package; no patient is behind them.",
    )
    labels = {sample.key: str(sample.meta.get("label")) for sample in read_samples(shards / "test")}
    named = {query: [labels[Path(str(hit.path)).stem] for hit in hits] for query, hits in found.items()}
    _tell(clock, curated, evaluated, named, report)
    return 0


def _tasks(shards: Path, training: Path) -> list[str]:
    return [
        "task=[synthetic,shards]",
        f"tasks.synthetic.dataset.test={shards / 'test'}",
        f"tasks.synthetic.dataset.train={shards / 'train'}",
        "tasks.synthetic.without_example=leave_out",  # a small feed may lack a class among its newest posts
        f"tasks.shards.dataset.folder={shards / 'test'}",
        f"untrained={training / 'untrained'}",
    ]


def _classes() -> dict[str, list[str]]:
    """The classes of the synthetic feed with their wordings, from the config of its task."""
    task = compose("evaluate", ["task=synthetic"]).tasks.synthetic
    return {str(name): [str(wording) for wording in wordings] for name, wordings in task.classes.items()}


def _remove_run(folder: Path, shards: Path) -> None:
    """Removes the training of an earlier demo; a run on other shards stays, and `train` says so."""
    record = folder / "run.json"
    if record.is_file():
        trained_on = json.loads(record.read_text(encoding="utf-8"))["config"]["data"]["train"]
        if trained_on == str(shards / "train"):
            shutil.rmtree(folder)


def _unpack(shards: Path, folder: Path) -> list[Path]:
    """The pictures of the shards as files, for commands that take a folder; those of an earlier demo go."""
    with atomic.staged_folder(folder) as staging:
        names = []
        for sample in read_samples(shards):
            names.append(f"{sample.key}.{image_suffix(sample.image)}")
            (staging / names[-1]).write_bytes(sample.image)
    return [folder / name for name in names]


def _funnel(curated: CurateResult) -> Section:
    steps = [*curated.funnel["posts"]["steps"], *curated.funnel["pairs"]["steps"]]
    chart = bar_chart(
        [step["reason"].replace("_", " ") for step in steps],
        {"dropped": [float(step["dropped"]) for step in steps]},
    )
    posts, pairs = curated.funnel["posts"], curated.funnel["pairs"]
    splits = ", ".join(f"{count} {name}" for name, count in curated.pairs.items())
    caption = (
        f"{posts['read']} rows read, {posts['kept']} posts kept; {pairs['read']} pictures of them, "
        f"{pairs['kept']} pairs kept: {splits}. Bars: rows dropped by each rule."
    )
    return Section("Curation: what falls out, and why", chart, caption)


def _rules(curated: CurateResult) -> Section:
    rows = "".join(
        f"<tr><td>{escape(score.reason.replace('_', ' '))}</td><td class='figure'>{score.n}</td>"
        f"<td class='figure'>{score.precision:.3f}</td><td class='figure'>{score.recall:.3f}</td></tr>"
        for score in curated.scores
    )
    head = "<tr><th>rule</th><th>rows it concerns</th><th>precision</th><th>recall</th></tr>"
    return Section(
        "Curation: each rule against the truth",
        f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>',
        "The feed's truth is known, so every rule can be scored.",
    )


def _pairs(curated: CurateResult) -> Section:
    samples = list(read_samples(curated.shards("train"), limit=400))[::40]
    pictures = [(open_image(sample.image), shorten(sample.text, 90, placeholder=" …")) for sample in samples]
    return Section("Pairs that training sees", picture_grid(pictures, side=128), "As they lie in the shards.")


def _loss(training: Path) -> Section:
    rows = read_metrics(training)
    series = {
        name: [(row["step"], row[key]) for row in rows if key in row and "step" in row]
        for name, key in (("training", "train/loss"), ("validation", "val/loss"))
    }
    return Section(
        "Training: loss", line_chart(series, "step", "loss", None), "Multi-positive contrastive loss."
    )


def _scores(evaluated: EvaluateResult) -> list[Section]:
    shown = _headlines(evaluated)
    caption = "With 95 % intervals over groups; the other figures are in evaluation/report.html."
    summary = Section("Evaluation on posts later in time", score_table(shown), caption)
    return [
        summary,
        *(one for one in evaluated.sections if one.title.rpartition(": ")[2] in SECTIONS),
    ]


def _headlines(evaluated: EvaluateResult) -> list[Score]:
    """The figures of all prompts averaged and of exact pairs, with their baselines and differences."""
    return [
        one
        for one in evaluated.scores
        if one.name in SHOWN
        and one.context.get("method") != "first_template"
        and one.context.get("definition", "exact_pair") == "exact_pair"
    ]


def _answers(paths: Sequence[Path], answers: Sequence[Sequence[Any]]) -> Section:
    pictures = [
        (open_image(path), ", ".join(f"{label.name} {label.probability:.0%}" for label in labels[:3]))
        for path, labels in zip(paths, answers, strict=True)
    ]
    return Section(
        "Two tiles classified", picture_grid(pictures, side=160), "With the int8 model, without torch."
    )


def _hits(found: dict[str, list[Hit]], folder: Path) -> list[Section]:
    return [
        Section(
            f"Search: “{query}”",
            picture_grid(
                [(Image.open(folder / str(hit.path)), f"{hit.score:.3f}") for hit in hits], side=128
            ),
            "The five nearest of the test tiles, with their cosine similarity.",
        )
        for query, hits in found.items()
    ]


def _times(clock: Clock) -> Section:
    names, seconds = list(clock.seconds), [round(value, 1) for value in clock.seconds.values()]
    return Section(
        "Where the time went", bar_chart(names, {"seconds": seconds}), f"{sum(seconds):.0f} s in all."
    )


def _tell(
    clock: Clock,
    curated: CurateResult,
    evaluated: EvaluateResult,
    found: Mapping[str, Sequence[str]],
    report: Path,
) -> None:
    """Ends with two short tables, what the queries found, and the path of the report."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 120  # a log has no edge to wrap at
    rules = Table("rule", "rows", "precision", "recall", title="curation: each rule against the truth")
    for rule in curated.scores:
        rules.add_row(rule.reason, str(rule.n), f"{rule.precision:.3f}", f"{rule.recall:.3f}")
    console.print(rules)
    figures = Table("figure", "by", "plain", "randomised colour", "n", title="on posts later in time")
    rows: dict[tuple[str, str], dict[str, Score]] = {}
    for score in _headlines(evaluated):
        rows.setdefault((score.name, method_text(score.context)), {})[score.context["variant"]] = score
    for (name, by), twins in rows.items():
        plain, recoloured = twins["plain"], twins["randomised_colour"]
        figures.add_row(name.replace("_", " "), by, value_text(plain), value_text(recoloured), str(plain.n))
    console.print(figures)
    for query, labels in found.items():
        console.print(f"search “{query}”: {', '.join(labels)}", highlight=False)
    console.print(f"time: {sum(clock.seconds.values()):.0f} s", highlight=False)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)
