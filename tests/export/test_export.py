from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import pathclip
from pathclip.errors import ConfigError, ModelFolderError
from pathclip.export.export import export
from pathclip.export.gate.gate import ExportGateError
from pathclip.model_folder import PROMPT_EMBEDDINGS, open_model_folder
from pathclip.runtime.prompt_store import stored_embeddings
from pathclip.shards.writer import Sample, write_shards
from pathclip.train.training_pictures import read_training_pictures
from tests.export.conftest import SEEN, config, picture

BOTH = pytest.mark.parametrize("which", ["exported_transformer", "exported_convolutional"])
PICTURES = np.random.default_rng(1).integers(0, 256, (8, 40, 40, 3)).astype(np.uint8)
TEXTS = [f"adenocarcinoma, slide {i}" for i in range(8)]


@pytest.fixture
def exported(which, request):
    return request.getfixturevalue(which)


@BOTH
def test_int8_gives_nearly_the_embeddings_of_fp32(exported):
    assert exported.gate.passed
    figures = {line.name: line.value for line in exported.gate.lines}
    assert figures["image cosine, mean"] > 0.98
    assert figures["text cosine, mean"] > 0.98


def test_the_hashes_of_the_training_pictures_come_along(exported_transformer):
    seen = read_training_pictures(open_model_folder(exported_transformer.out))
    assert [row.tobytes().hex() for row in seen.sha256] == [SEEN]


@BOTH
def test_no_weight_leaves_seven_bits_so_that_no_cpu_can_saturate(exported):
    for tower in ("image", "text"):
        model = onnx.load(exported.out / "onnx" / f"{tower}_int8.onnx")
        weights = [
            w for w in model.graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1
        ]
        assert weights
        for weight in weights:
            values = numpy_helper.to_array(weight).astype(int)
            assert values.min() >= -64 and values.max() <= 64


@BOTH
def test_a_picture_and_a_text_are_the_same_alone_and_in_a_batch(exported):
    encoder = pathclip.load(exported.out, precision="int8")
    for encode, values in ((encoder.encode_images, PICTURES), (encoder.encode_texts, TEXTS)):
        together = encode(values)
        alone = np.concatenate([encode(values[i : i + 1]) for i in range(8)])
        np.testing.assert_allclose(together, alone, atol=1e-4)


@BOTH
def test_fp32_onnx_gives_what_torch_gives(exported, which, request):
    source = request.getfixturevalue(which.removeprefix("exported_"))
    torch = pathclip.load(source, runtime="torch")
    fp32 = pathclip.load(exported.out, precision="fp32")
    np.testing.assert_allclose(fp32.encode_images(PICTURES), torch.encode_images(PICTURES), atol=1e-4)
    np.testing.assert_allclose(fp32.encode_texts(TEXTS), torch.encode_texts(TEXTS), atol=1e-4)


def test_the_folder_is_whole_and_small(exported_convolutional):
    folder = open_model_folder(exported_convolutional.out)
    assert {"tokenizer.json", "open_clip_config.json", "text/config.json", "gate.json", "README.md"} <= set(
        folder.card["files"]
    )
    assert not folder.has("open_clip_model.safetensors")
    assert json.loads(folder.file("gate.json").read_text())["passed"] is True
    assert "not for diagnosis" in folder.file("README.md").read_text()
    size = {name: (folder.path / name).stat().st_size for name in folder.card["files"]}
    assert size["onnx/image_int8.onnx"] < 0.3 * size["onnx/image_fp32.onnx"]
    assert size["onnx/text_int8.onnx"] < 0.3 * size["onnx/text_fp32.onnx"]


def test_zero_shot_agreement_is_measured_where_classes_are_given(
    exported_transformer, exported_convolutional
):
    lines = [
        next(line for line in result.gate.lines if line.name == "zero-shot agreement")
        for result in (exported_transformer, exported_convolutional)
    ]
    assert lines[0].value is not None and lines[0].value > 0.8
    assert lines[1].value is None and lines[1].passed is None


def test_a_figure_that_was_not_measured_is_seen_as_such_in_the_folder(
    exported_transformer, exported_convolutional
):
    measured, without = (
        json.loads((result.out / "gate.json").read_text())
        for result in (exported_transformer, exported_convolutional)
    )
    labels = "balanced accuracy lost"
    assert measured["not_measured"] == [labels]
    assert without["not_measured"] == ["zero-shot agreement", labels]
    row = "| zero-shot agreement | not measured |  |  |  | no class prompts given: prompts.classes=[…] |"
    assert row in (exported_convolutional.out / "README.md").read_text().splitlines()


def test_a_failing_gate_leaves_nothing_but_the_report_that_says_so(transformer, tmp_path):
    with pytest.raises(ExportGateError, match="image cosine, mean"):
        export(config(transformer, tmp_path / "refused", "gate.image_cosine=1.1", "search=false"))
    assert [path.name for path in tmp_path.iterdir()] == ["refused-report"]
    assert "The gate failed" in (tmp_path / "refused-report" / "report.html").read_text()


@BOTH
def test_the_report_stands_beside_the_folder_and_holds_its_gate(exported):
    assert exported.report == exported.out.with_name(f"{exported.out.name}-report")
    found = json.loads((exported.report / "report.json").read_text())
    assert found["gate"] == json.loads((exported.out / "gate.json").read_text())
    for tower in ("image", "text"):
        assert len(found["towers"][tower]["layer_errors"]) >= found["towers"][tower]["layers"] > 0


def test_the_gate_records_where_its_pairs_come_from_and_that_prompts_took_part(
    exported_transformer, exported_convolutional
):
    gate = json.loads((exported_transformer.out / "gate.json").read_text())
    assert (
        gate["held_out"]["source"] == "training shards" and "no validation shards" in gate["held_out"]["note"]
    )
    assert "of the training shards" in (exported_transformer.out / "README.md").read_text()
    chose = [
        json.loads((one.report / "report.json").read_text())["data"]["prompts_took_part_in_the_choice"]
        for one in (exported_transformer, exported_convolutional)
    ]
    assert chose == [True, False]


def test_the_gate_names_the_trial_that_was_taken(exported_transformer):
    entry = json.loads((exported_transformer.out / "gate.json").read_text())["recipes"]["text"]
    assert len(entry["trials"]) > 3
    taken, best = entry["trials"][entry["chosen"]], max(trial["fidelity"] for trial in entry["trials"])
    assert taken["fidelity"] >= best - 0.002 - 1e-6
    assert taken["bytes"] == (exported_transformer.out / "onnx" / "text_int8.onnx").stat().st_size


def test_prompts_of_the_named_classes_need_no_text_tower(exported_transformer):
    folder = open_model_folder(exported_transformer.out)
    encoder = pathclip.load(exported_transformer.out, precision="int8")
    for precision in ("int8", "fp32"):
        stored = stored_embeddings(folder, precision, encoder.dim)
        assert [text for text in stored if "necrosis" in text]
        own = pathclip.load(exported_transformer.out, precision=precision).encode_texts(list(stored))
        np.testing.assert_allclose(np.stack(list(stored.values())), own, atol=1e-5)


def test_without_classes_no_prompts_are_stored(exported_convolutional):
    assert not open_model_folder(exported_convolutional.out).has(PROMPT_EMBEDDINGS)


def test_a_task_gives_the_gate_its_pictures_and_the_folder_its_prompts(transformer, tmp_path):
    for name, number in (("benign", 0), ("tumour", 1)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for place in range(6):
            file = tmp_path / "set" / name / f"{place}.png"
            file.write_bytes(picture(1000 + 2 * place + number))
    result = export(
        config(
            transformer,
            tmp_path / "out",
            *("search=false", "task=folders", f"tasks.folders.dataset.folder={tmp_path / 'set'}"),
            "tasks.folders.classes={benign: [benign tissue], tumour: [carcinoma, tumour]}",
        )
    )
    lines = {line.name: line for line in result.gate.lines}
    assert lines["balanced accuracy lost"].n == lines["zero-shot agreement"].n == 12
    stored = stored_embeddings(open_model_folder(result.out), "int8", 32)
    assert [text for text in stored if "carcinoma" in text]


@pytest.fixture(scope="module")
def forced(transformer, tmp_path_factory):
    """Written though its gate failed, and calibrated on pairs whose shards name a class."""
    folder = tmp_path_factory.mktemp("labelled")
    pairs = [
        Sample(f"s{i:03d}", picture(i), f"case {i}", {"group": f"g{i}", "label": ("benign", "tumour")[i % 2]})
        for i in range(40)
    ]
    write_shards(folder / "shards", pairs)
    overrides = (
        "gate.image_cosine=1.1",
        "force=true",
        "search=false",
        f"calibration.shards={folder / 'shards'}",
    )
    return export(config(transformer, folder / "forced", *overrides))


def test_a_forced_folder_says_that_its_gate_failed(forced):
    assert not forced.gate.passed
    assert open_model_folder(forced.out).card["export"]["gate_passed"] is False
    assert "failed its export gate" in (forced.out / "README.md").read_text()


def test_labels_in_the_shards_are_what_accuracy_is_measured_on(forced):
    line = next(line for line in forced.gate.lines if line.name == "balanced accuracy lost")
    held_out = json.loads((forced.report / "report.json").read_text())["data"]["held_out"]
    assert line.value is not None and line.n == held_out >= 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gate.image_cosine=high"], "gate.image_cosine"),
        (["recipe.calibration=entropie"], "recipe.calibration"),
        (["search=fast"], "^search: expected false, quick or full, got 'fast'"),
        (["search=true"], "^search: expected false, quick or full, got True"),
        (["tolerance=-1"], "^tolerance: .* got -1"),
        (["search_minutes=long"], "^search_minutes: .* got 'long'"),
        (["calibration.selection=0"], r"^calibration\.selection: .* got 0"),
        (["task=[lc25000,mhist]"], "^task: one at most, but 2 were named: lc25000, mhist"),
        (["report=${out}"], "^report: .* is a model folder"),
        (["recipe.weight_bits=4"], "weight_bits"),
        (["seed=abc"], "^seed: expected int of at least 0, got 'abc'"),
        (["seed=-1"], "^seed: .* got -1"),
        (["limit=abc"], "^limit: .* got 'abc'"),
        (["calibration.samples=abc"], r"^calibration\.samples: .* got 'abc'"),
        (["calibration.held_out=0"], r"^calibration\.held_out: .* got 0"),
        (["prompts.classes=tumour"], r"^prompts\.classes: expected list"),
        (["prompts.classes=[a,b]", "prompts.templates=[tissue]"], r"^prompts\.templates: 'tissue' has no {}"),
    ],
)
def test_a_wrong_value_is_named(transformer, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        export(config(transformer, tmp_path / "out", *overrides))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["force", "keep_fp32", "keep_torch"])
def test_a_word_for_no_is_refused_and_not_taken_for_yes(key, transformer, tmp_path):
    with pytest.raises(ConfigError, match=rf"^{key}: expected bool \(true or false\), got 'no'"):
        export(config(transformer, tmp_path / "out", f"{key}=no"))
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be_is_named(transformer, tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(ConfigError, match=r"^out: .*model is a file"):
        export(config(transformer, tmp_path / "model"))


def test_an_exported_folder_is_not_exported_again(exported_transformer, tmp_path):
    with pytest.raises(ModelFolderError, match="exported already"):
        export(config(exported_transformer.out, tmp_path / "again"))


def test_a_folder_of_something_else_is_not_replaced(transformer, tmp_path):
    (tmp_path / "thesis.md").write_text("years of work")
    with pytest.raises(ConfigError, match="is no model folder"):
        export(config(transformer, tmp_path))
    assert (tmp_path / "thesis.md").read_text() == "years of work"


def test_a_model_without_recorded_shards_asks_for_them(tmp_path, transformer):
    import shutil

    from pathclip.model_folder import update_card

    copy = Path(shutil.copytree(transformer, tmp_path / "model"))
    update_card(copy, training={})
    with pytest.raises(ConfigError, match=r"calibration\.shards"):
        export(config(copy, tmp_path / "out"))


def test_pictures_pass_through_pil_alike(exported_transformer):
    encoder = pathclip.load(exported_transformer.out, precision="int8")
    images = [Image.fromarray(pixels) for pixels in PICTURES]
    np.testing.assert_array_equal(encoder.encode_images(images), encoder.encode_images(PICTURES))
