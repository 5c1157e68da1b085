"""Every config composes, and what it describes is built: a typo in any of them fails here."""

from __future__ import annotations

import csv
import inspect
import json

import pytest
import torch
from omegaconf import OmegaConf

from pathclip.config import build, config_dir
from pathclip.curate.source import open_source
from pathclip.curate.withdraw import withdraw_from
from pathclip.errors import ConfigError
from pathclip.evaluate.classification.zeroshot import check_prompts
from pathclip.evaluate.classification.zeroshot_task import class_numbers
from pathclip.evaluate.datasets import MultiLabelData
from pathclip.evaluate.features.encode import VARIANTS
from pathclip.evaluate.image_text.retrieval import DEFINITIONS
from pathclip.evaluate.image_text.retrieval_task import Retrieval
from pathclip.export.gate.gate import Thresholds
from pathclip.export.quantiser.recipe import Recipe
from pathclip.launch import compose
from pathclip.runtime.preprocess import Preprocess
from pathclip.runtime.tokenizer import Tokenizer
from pathclip.shards.writer import Sample, write_shards
from pathclip.sources.synthetic_tiles import CLASSES
from pathclip.train.precision import with_precision
from pathclip.types import Post
from tests import tiny_shards
from tests.evaluate import public_sets

VERBS = ("curate", "train", "evaluate", "export")


def options(group):
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes_with_defaults_alone(verb):
    assert compose(verb).out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_tiny_debug_config(verb):
    assert compose(verb, ["debug=tiny"]).limit == 64


def parts(node):
    """A node itself, or the nodes in it where the config is a mapping of them."""
    return [node] if "_target_" in node else list(node.values())


def check_call(node, key, **given):
    """Checks a node that cannot be built here: target, names, types, and that no argument is missing."""
    partial = build({**node, "_partial_": True}, key, **given)
    inspect.signature(partial.func).bind(*partial.args, **partial.keywords)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A folder of shards with a picture of each class that the synthetic feed draws."""
    folder = tmp_path_factory.mktemp("shards")
    picture = tiny_shards.jpeg((180, 90, 140), 0)
    write_shards(
        folder,
        [Sample(f"s{i}", picture, name, {"label": name, "group": name}) for i, name in enumerate(CLASSES)],
    )
    return folder


@pytest.fixture(scope="module")
def real_data(tmp_path_factory):
    """What lies in `paths.shared_data`, in small: the same columns and classes, pictures of nothing."""
    root = tmp_path_factory.mktemp("data")
    classes = {
        "lc25000": [
            *("benign lung tissue", "lung adenocarcinoma", "lung squamous cell carcinoma"),
            *("benign colonic tissue", "colon adenocarcinoma"),
        ],
        "oral_oscc": ["normal oral epithelium", "oral squamous cell carcinoma"],
    }
    rows = [
        {
            "path": f"patches/{dataset}/{name} {i}.jpeg".replace(" ", "_"),
            "dataset": dataset,
            "label": name[:4],
            "label_text": name,
            "group": f"{name}-{i}" if dataset == "lc25000" else "",
            "split": ("train", "val")[i % 2] if dataset == "lc25000" else "",
            "stain": "H&E",
            "licence": "CC0",
        }
        for dataset, names in classes.items()
        for name in names
        for i in range(30)
    ]
    for row in rows:
        (root / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (root / row["path"]).write_bytes(b"")
    with (root / "patches" / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pairs = root / "pairs" / "patoloji_atlasi"
    pairs.mkdir(parents=True)
    row = {"id": "1", "image": "1.jpg", "caption": "Adenocarcinoma, colon", "case": "c1", "organ": "colon"}
    (pairs / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return root


@pytest.mark.parametrize("model", options("model"))
def test_every_model_config_describes_something_that_can_be_built(model):
    # Building is left to the tests of pathclip.model: it takes weights and time.
    cfg = compose("train", [f"model={model}", *(["model.path=x"] if model == "folder" else [])])
    check_call(cfg.model, "model")


@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_builds(loss):
    assert callable(build(compose("train", [f"loss={loss}"]).loss, "loss"))


@pytest.mark.parametrize("optim", options("optim"))
def test_every_optimiser_builds(optim):
    make = build(compose("train", [f"optim={optim}"]).optim, "optim")
    assert isinstance(make([torch.nn.Parameter(torch.zeros(1))]), torch.optim.Optimizer)


@pytest.mark.parametrize("schedule", options("schedule"))
def test_every_schedule_builds(schedule):
    factor = build(compose("train", [f"schedule={schedule}"]).schedule, "schedule")
    assert all(0 <= factor(step, 100) <= 1 for step in (0, 10, 50, 99))


@pytest.mark.parametrize("augment", options("augment"))
def test_every_augmentation_builds(augment):
    cfg = compose("train", [f"augment={augment}"])
    file = OmegaConf.load(config_dir() / "augment" / f"{augment}.yaml")
    assert build(cfg.data.augment, "data.augment") == build(file, "augment")


@pytest.mark.parametrize("trainer", options("trainer"))
def test_every_trainer_builds(trainer):
    node = compose("train", [f"trainer={trainer}"]).trainer
    check_call(node, "trainer")
    if node.accelerator == "cpu":
        build(node, "trainer", logger=False)


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_every_callback_and_logger_builds(group, tmp_path):
    for name in options(group):
        for part in parts(compose("train", [f"{group}={name}", f"out={tmp_path}"])[group]):
            built = build(part, group)
            # An average of the weights and an early end are there where they are asked for.
            assert built is not None or {part.get("decay"), part.get("monitor")} == {None}


@pytest.mark.parametrize("data", options("data"))
def test_every_data_config_builds(data, shards, tiny_model):
    cfg = compose("train", [f"data={data}", f"data.train={shards}"])
    build_data(cfg, tiny_model)


def build_data(cfg, model, **folders):
    preprocess = Preprocess(size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    tokenizer = Tokenizer(model / "tokenizer.json", 12, pad_id=0)
    node = {**cfg.data, **folders}
    return build(node, "data", preprocess=preprocess, tokenizer=tokenizer, seed=cfg.seed, limit=cfg.limit)


@pytest.mark.parametrize("changes", [*(f"experiment={name}" for name in options("experiment")), "debug=tiny"])
def test_every_experiment_and_debug_config_builds(changes, real_data, shards, tiny_model, tmp_path):
    cfg = compose("train", [changes, f"paths.shared_data={real_data}", f"out={tmp_path}"])
    check_call(cfg.model, "model")
    for key in ("loss", "optim", "schedule"):
        build(cfg[key], key)
    build(with_precision(cfg.trainer), "trainer")
    build_data(cfg, tiny_model, train=str(shards))
    if cfg.curate:
        curated = compose("curate", [*map(str, cfg.curate), f"out={tmp_path}"])
        build_rules(curated)
        assert read(curated, tmp_path)


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_opens_with_its_command(experiment):
    cfg = compose("train", [f"experiment={experiment}"])
    assert "experiment" not in cfg, "the experiment's keys must reach the whole config"
    first = (config_dir() / "experiment" / f"{experiment}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# pathclip train experiment={experiment}")
    assert cfg.curate or "data.train=" in first, "its command must say which pairs it trains on"


def build_rules(cfg):
    for key in ("rules", "text", "images", "fetch", "dedup", "engine"):
        build(cfg[key], key)
    build(cfg.split, "split", seed=cfg.seed)


def read(cfg, out):
    """The first rows of a source as posts, by way of its config."""
    source = open_source(OmegaConf.to_container(cfg.source, resolve=True), out, limit=60)
    rows = [row for file in source.dump.files for row in source.dump.read(file)]
    return [row for row in rows if isinstance(row, Post)]


@pytest.mark.parametrize("rules", options("rules"))
def test_every_set_of_rules_builds(rules):
    build_rules(compose("curate", [f"rules={rules}"]))


@pytest.mark.parametrize("engine", options("engine"))
def test_every_engine_builds(engine):
    cfg = compose("curate", [f"engine={engine}", "workers=3"])
    built = build(cfg.engine, "engine")
    assert (built.kind, built.workers) == (engine, 3)


TEXT = "a benign naevus"
ARTICLE = f"""<article><front><article-meta>
<article-id pub-id-type="pmc">1</article-id></article-meta></front>
<body><fig id="f1"><caption><p>{TEXT}</p></caption><graphic xlink:href="f1.jpg"
xmlns:xlink="http://www.w3.org/1999/xlink"/></fig></body></article>"""
BLUESKY = {
    "uri": "at://did:plc:abc/app.bsky.feed.post/1",
    "cid": "c1",
    "author": {"did": "did:plc:abc", "handle": "a.example.org"},
    "record": {"$type": "app.bsky.feed.post", "text": TEXT, "createdAt": "2024-01-01T00:00:00.000Z"},
    "indexedAt": "2024-01-01T00:00:00.000Z",
}
STATUS = {
    "id": "1",
    "uri": "https://example.org/1",
    "created_at": "2024-01-01T00:00:00.000Z",
    "content": f"<p>{TEXT}</p>",
    "account": {"id": "7", "acct": "a"},
    "media_attachments": [],
}
TWEET = {"id": "1", "text": TEXT, "created_at": "2022-01-01T00:00:00.000Z"}
# What the smallest dump of a source is: the name of its file and its content.
DUMPS = {
    "bluesky": ("posts.jsonl", json.dumps(BLUESKY)),
    "figures": ("1.nxml", ARTICLE),
    "mastodon": ("posts.jsonl", json.dumps(STATUS)),
    "table": ("table.csv", f"image,text\n1.jpg,{TEXT}\n"),
    "twitter": ("tweets.jsonl", json.dumps({"data": [TWEET]})),
}


@pytest.mark.parametrize("source", [name for name in options("source") if name != "shards"])
def test_every_source_reads(source, tmp_path):
    named = []
    if source in DUMPS:
        name, content = DUMPS[source]
        (tmp_path / name).write_text(content + "\n")
        named = [f"source.posts={tmp_path / name}"]
    posts = read(compose("curate", [f"source={source}", *named]), tmp_path)
    assert posts and (source == "synthetic" or [post.text for post in posts] == [TEXT])


def test_the_source_of_a_withdrawal_composes_and_its_run_writes_nothing_elsewhere(tmp_path):
    tiny_shards.write(tmp_path / "shards", n=4)
    (tmp_path / "gone.txt").write_text("s0001\n")
    cfg = compose(
        "curate",
        [
            *("source=shards", f"source.posts={tmp_path / 'shards'}"),
            f"source.tombstones={tmp_path / 'gone.txt'}",
        ],
    )
    assert withdraw_from(cfg).shards == 1
    assert {path.name for path in tmp_path.iterdir()} == {"shards", "gone.txt"}


@pytest.mark.parametrize("source", options("source"))
def test_every_source_opens_with_its_command(source):
    lines = (config_dir() / "source" / f"{source}.yaml").read_text().splitlines()
    assert any(line.startswith(f"# pathclip curate source={source}") for line in lines[:4])


# What writes a public set in small, and the folders in it that its task is given.
SETS = {
    "bach": (public_sets.bach, {"folder": "."}),
    "breakhis": (public_sets.breakhis, {"folder": "BreaKHis_v1"}),
    "breakhis_types": (public_sets.breakhis, {"folder": "BreaKHis_v1"}),
    "digestpath": (public_sets.large_digestpath, {"folder": "Colonoscopy_tissue_segment_dataset"}),
    "folders": (public_sets.folders, {"folder": "."}),
    "kather": (public_sets.both_kather, {"test": "CRC-VAL-HE-7K", "train": "NCT-CRC-HE-100K"}),
    "lc25000_folders": (public_sets.lc25000, {"folder": ".", "tiles": "groups.csv"}),
    "mhist": (public_sets.mhist, {"folder": "."}),
    "pannuke": (public_sets.pannuke, {"folder": "."}),
    "pcam": (public_sets.pcam, {"folder": "."}),
    "sicap": (public_sets.sicap, {"folder": "SICAPv2"}),
    "wsss4luad": (public_sets.wsss4luad, {"folder": "1.training"}),
    "wsss4luad_multi_label": (public_sets.wsss4luad, {"folder": "1.training"}),
}


@pytest.fixture
def task_data(real_data, shards, tmp_path):
    """A function that gives a task its data: it writes them where needed, and names them by overrides."""
    (real_data / "table.csv").write_text("path,label\ntable.csv,a\ntable.csv,b\n")
    named = {
        "atlas": [f"tasks.atlas.dataset.folder={shards}"],
        "shards": [f"tasks.shards.dataset.folder={shards}"],
        "synthetic": [f"tasks.synthetic.dataset.test={shards}", f"tasks.synthetic.dataset.train={shards}"],
        "patches_csv": [f"tasks.patches_csv.dataset.csv={real_data / 'table.csv'}"],
        "lc25000": [f"paths.shared_data={real_data}"],
        "oral_oscc": [f"paths.shared_data={real_data}"],
    }

    def overrides(name):
        if name in named:
            return named[name]
        write, folders = SETS[name]
        write(tmp_path / name)
        return [f"tasks.{name}.dataset.{key}={tmp_path / name / path}" for key, path in folders.items()]

    return overrides


@pytest.mark.parametrize("name", options("task"))
def test_every_task_builds_on_data_of_its_kind(name, task_data):
    task = build(compose("evaluate", [f"task={name}", *task_data(name)]).tasks[name], f"tasks.{name}")
    assert task.licence and task.citation
    assert {*task.variants} <= {*VARIANTS}
    if isinstance(task, Retrieval):
        assert {*task.definitions} <= {*DEFINITIONS} and all(k > 0 for k in task.ks)
        return
    if task.classes is None:
        return
    check_prompts(task.classes, task.templates)
    if isinstance(task.dataset, MultiLabelData):
        assert {name for label in task.dataset.test.labels for name in label} == {*task.classes}
        return
    kept = [name for name in task.classes if name in task.dataset.test.labels]
    names = kept if task.without_example == "leave_out" else list(task.classes)
    class_numbers(task.dataset.test, names)  # a name that the data does not have is refused
    assert task.dataset.train is not None
    class_numbers(task.dataset.train, list(task.classes))


@pytest.mark.parametrize("name", SETS)
def test_every_public_set_opens_with_its_command(name):
    text = (config_dir() / "task" / f"{name}.yaml").read_text()
    assert text.startswith(f"# @package tasks.{name}\n")
    assert text.splitlines()[2].startswith(f"# pathclip evaluate model=… task={name} tasks.{name}.dataset.")


@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_and_the_limits_of_the_gate_build(recipe):
    cfg = compose("export", [f"recipe={recipe}"])
    assert isinstance(build(cfg.recipe, "recipe"), Recipe)
    assert Thresholds.from_config(cfg.gate)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optm.lr=1"], r"'optm\.lr'.*optim\.lr"),
        (["lr=1"], r"optim\.lr"),
        (["loss=multipositive"], "multi_positive"),
        (["trainer.max_epoch=1"], "max_epochs"),
        (["data.batchsize=1"], "batch_size"),
        (["modle=lite"], "model"),
        (["model.nothing_like_it=1"], "no such key"),
    ],
)
def test_a_wrong_key_gets_one_line_with_the_nearest_valid_one(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose("train", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", options("measure"))
def test_every_measure_of_an_evaluation_builds_and_says_whether_it_learns(name):
    measures = compose("evaluate", [f"measure=[{name}]"]).measures
    assert list(measures) == [name]
    assert isinstance(build(measures[name], f"measures.{name}").learns, bool)


def test_an_evaluation_measures_all_but_what_is_slow():
    assert {*options("measure")} - {*compose("evaluate").measures} == {"fine_tuning"}
