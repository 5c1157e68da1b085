from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pathclip import cli
from pathclip.commands import pipeline
from tests import tiny_calibration
from tests.tiny_model import break_file, list_files_again, write_image, write_tiny_model


@pytest.fixture
def images(tmp_path):
    for colour in ("red", "green", "blue"):
        write_image(tmp_path / "images" / f"{colour}.png", colour)
    return tmp_path / "images"


@pytest.fixture
def index(tmp_path, tiny_model, images, capsys):
    assert cli.main(["index", str(tiny_model), str(images), "--out", str(tmp_path / "a.index")]) == 0
    capsys.readouterr()
    return tmp_path / "a.index"


def test_the_overview_names_every_verb_with_an_example(call):
    status, out, err = call("--help")
    assert (status, err) == (0, [])
    for verb in cli.VERBS:
        assert f"  {verb}" in out
        assert f"pathclip {verb}" in out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_examples(call, verb):
    status, out, _ = call(verb, "--help")
    assert status == 0
    assert f"pathclip {verb}" in out.split("For example:")[1]


def test_an_unknown_verb_suggests_the_nearest(call):
    assert call("clasify", "x") == (2, "", ["pathclip: there is no 'clasify'. Did you mean classify?"])


def test_the_version_is_told(call):
    from pathclip import __version__

    assert call("--version") == (0, f"pathclip {__version__}\n", [])


def test_classify_shows_classes_with_probabilities(call, tiny_model, images):
    status, out, err = call("classify", tiny_model, images / "red.png", "--labels", "blue, red", "--top", 1)
    assert (status, out, err) == (0, f"{images / 'red.png'}\n  1.000  red\n", [])


def test_classify_takes_files_folders_and_patterns_each_picture_once(call, tiny_model, images):
    write_image(images / "deep" / "white.png", "white")
    given = [images / "red.png", images, f"{images}/*.png"]
    _, out, _ = call("classify", tiny_model, *given, "--labels", "red,blue", "--json")
    names = [Path(image["path"]).name for image in json.loads(out)["images"]]
    assert names == ["red.png", "blue.png", "white.png", "green.png"]


def test_json_is_the_only_thing_on_stdout_and_says_what_was_asked(call, tiny_model, images):
    (images / "bad.jpg").write_bytes(b"no picture")
    status, out, err = call(
        "classify", tiny_model, images, "--labels", "red,blue", "--templates", "a slide of {}", "--json"
    )
    document = json.loads(out)
    assert status == 1
    assert document["model"]["precision"] == "int8"
    assert len(document["model"]["hash"]) == 64
    assert document["templates"] == ["a slide of {}"]
    assert [Path(image["path"]).stem for image in document["images"]] == ["blue", "green", "red"]
    assert document["images"][2]["labels"][0]["name"] == "red"
    assert [Path(failed["path"]).name for failed in document["failed"]] == ["bad.jpg"]
    assert len(err) == 1


def test_one_bad_picture_gets_a_line_and_the_others_go_on(call, tiny_model, images):
    (images / "bad.jpg").write_bytes(b"no picture")
    status, out, err = call("classify", tiny_model, images, "--labels", "red,blue")
    assert status == 1
    assert out.count(".png") == 3
    assert len(err) == 1
    assert err[0].startswith(f"pathclip classify: {images / 'bad.jpg'}: not a picture")


def test_a_strip_of_one_pixel_is_one_bad_picture(call, tmp_path, tiny_model, images, index):
    strip = write_image(images / "strip.png", "red", (60_000, 1))
    status, out, err = call("classify", tiny_model, images, "--labels", "red,blue")
    assert (status, out.count(".png"), len(err)) == (1, 3, 1)
    assert err[0].startswith(f"pathclip classify: {strip}: 60000 x 1 pixels is too thin")
    status, out, err = call("index", tiny_model, images, "--out", tmp_path / "b.index")
    assert (status, out) == (0, f"{tmp_path / 'b.index'}: 3 pictures by onnx int8; 1 could not be read\n")
    assert len(err) == 1
    assert err[0].startswith(f"pathclip index: {strip}: 60000 x 1 pixels is too thin")
    status, out, err = call("search", index, "--image", strip)
    assert (status, out, len(err)) == (1, "", 1)
    assert err[0].startswith(f"pathclip search: {strip}: 60000 x 1")


def test_a_name_that_is_not_utf8_is_one_bad_picture(call, tmp_path, tiny_model, images, index):
    odd = images / os.fsdecode(b"caf\xe9.png")
    (images / "red.png").rename(odd)
    message = rf"{images}/caf\udce9.png: this name is not UTF-8 text; rename it"
    status, out, err = call("classify", tiny_model, images, "--labels", "red,blue", "--json")
    assert (status, err) == (1, [f"pathclip classify: {message}"])
    assert json.loads(out)["failed"] == [{"path": rf"{images}/caf\udce9.png", "error": message}]
    status, out, err = call("index", tiny_model, images, "--out", tmp_path / "b.index")
    assert (status, err) == (0, [f"pathclip index: {message}"])
    assert out == f"{tmp_path / 'b.index'}: 2 pictures by onnx int8; 1 could not be read\n"
    status, out, _ = call("search", tmp_path / "b.index", "red", "--json")
    assert status == 0
    assert len(json.loads(out)["hits"]) == 2
    assert call("search", index, "--image", odd) == (1, "", [f"pathclip search: {message}"])


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\n"])
def test_a_name_with_an_odd_line_break_is_found_again(call, tmp_path, tiny_model, images, mark):
    name = f"a{mark}b.png"
    (images / "red.png").rename(images / name)
    assert call("index", tiny_model, images, "--out", tmp_path / "b.index")[0] == 0
    status, out, _ = call("search", tmp_path / "b.index", "red", "-k", 1, "--json")
    assert status == 0
    assert json.loads(out)["hits"][0]["path"] == str(images / name)


def test_the_models_own_templates_are_used_unless_others_are_given(call, tmp_path, images):
    model = write_tiny_model(tmp_path / "m", prompts={"templates": ["histopathology of {}"]})
    _, out, _ = call("classify", model, images, "--labels", "red,blue", "--json")
    assert json.loads(out)["templates"] == ["histopathology of {}"]


def test_without_templates_in_the_card_the_built_in_ones_are_used(call, tmp_path, images):
    from pathclip.runtime.classify import TEMPLATES

    model = write_tiny_model(tmp_path / "m", prompts={})
    _, out, _ = call("classify", model, images, "--labels", "red,blue", "--json")
    assert json.loads(out)["templates"] == list(TEMPLATES)


@pytest.fixture
def calibrated(tmp_path):
    """A model that is calibrated for the classes warm, cold and other, under the name 'colours'."""
    model = write_tiny_model(tmp_path / "calibrated")
    return tiny_calibration.write(model, {"colours": {"int8": tiny_calibration.entry(model)}})


def test_labels_of_a_calibrated_task_get_its_probabilities_set_and_wordings(call, calibrated, images):
    labels = ["--labels", "cold,other,warm"]
    status, out, err = call("classify", calibrated, images / "red.png", *labels, "--json")
    document = json.loads(out)
    assert (status, err) == (0, [])
    assert document["calibrated"]["task"] == "colours"
    assert (document["calibrated"]["coverage"], document["calibrated"]["n"]) == (0.9, 120)
    assert document["calibrated"]["classes"]["warm"] == ["red", "white"]
    assert document["templates"] == ["{}", "an image of {}"]
    (image,) = document["images"]
    assert image["labels"][0]["name"] == "warm" and image["set"][0] == "warm"
    assert image["none_of_these"] is False


def test_a_table_shows_the_set_and_what_it_was_calibrated_on(call, calibrated, images):
    _, out, _ = call("classify", calibrated, images / "blue.png", "--task", "colours", "--top", 1)
    path, first, note = out.splitlines()
    assert path == str(images / "blue.png") and first.endswith("  cold")
    assert note == "  calibrated on colours, n 120 in 40 groups; 90% set: cold"


def test_a_calibration_on_trained_pictures_says_so(call, calibrated, images):
    leaking = tiny_calibration.entry(calibrated, marks=["leak"])
    tiny_calibration.write(calibrated, {"colours": {"int8": leaking}})
    given = ("classify", calibrated, images / "blue.png", "--task", "colours")
    assert "calibrated on colours (leak: the model was trained on its pictures), n 120" in call(*given)[1]
    assert json.loads(call(*given, "--json")[1])["calibrated"]["marks"] == ["leak"]


def test_a_picture_that_resembles_no_class_is_said_to(call, tmp_path, images):
    model = write_tiny_model(tmp_path / "m")
    fitted = tiny_calibration.entry(model, none_threshold=1.0, conformal_threshold=0.0)
    tiny_calibration.write(model, {"colours": {"int8": fitted}})
    _, out, _ = call("classify", model, images / "green.png", "--task", "colours")
    assert "  none of these? similarity 0.9" in out and ", below 1.000\n" in out
    assert "90% set: no class is probable enough\n" in out
    _, out, _ = call("classify", model, images / "green.png", "--task", "colours", "--json")
    (image,) = json.loads(out)["images"]
    assert image["none_of_these"] is True and image["set"] == []


def test_other_labels_stay_as_they_are_without_calibration(call, calibrated, tiny_model, images):
    given = [images / "red.png", "--labels", "red,blue"]
    assert call("classify", calibrated, *given)[1] == call("classify", tiny_model, *given)[1]
    document = json.loads(call("classify", calibrated, *given, "--json")[1])
    assert document["calibrated"] is None
    assert document["images"][0].keys() == {"path", "labels"}


@pytest.mark.parametrize("choice", [["--labels", "cold,other,warm"], ["--task", "colours"]])
def test_other_templates_end_the_calibration_and_this_is_said(call, calibrated, images, choice):
    status, out, err = call(
        "classify", calibrated, images / "red.png", *choice, "--templates", "{}", "--json"
    )
    document = json.loads(out)
    assert (status, document["calibrated"], document["templates"]) == (0, None, ["{}"])
    assert err == [
        "pathclip classify: the calibration of task 'colours' holds for its own templates; with --templates "
        "the probabilities are not calibrated"
    ]


def test_a_malformed_calibration_is_one_line(call, tmp_path, images):
    model = write_tiny_model(tmp_path / "m", calibration={"colours": {"int8": {"classes": 3}}})
    status, out, err = call("classify", model, images, "--labels", "red,blue")
    assert (status, out, len(err)) == (1, "", 1)
    assert "calibration.colours.int8.classes must map" in err[0]


MISTAKES = {
    "labels and task": (
        ["classify", "{model}", "{images}", "--labels", "a,b", "--task", "x"],
        'give either --labels "tumour,normal" or --task NAME',
    ),
    "neither labels nor task": (
        ["classify", "{model}", "{images}"],
        'give either --labels "tumour,normal" or --task NAME',
    ),
    "a task of no calibration": (
        ["classify", "{model}", "{images}", "--task", "x"],
        "no calibrated task 'x'",
    ),
    "one label": (["classify", "{model}", "{images}", "--labels", "red"], "--labels needs two classes"),
    "commas only": (["classify", "{model}", "{images}", "--labels", ",,"], "--labels needs two classes"),
    "a label twice": (["classify", "{model}", "{images}", "--labels", "red,red"], "each class once"),
    "template": (
        ["classify", "{model}", "{images}", "--labels", "a,b", "--templates", "a photo"],
        "'a photo' has no {}",
    ),
    "no model": (["classify", "{tmp}/gone", "{images}", "--labels", "a,b"], "gone: no such folder"),
    "no model folder": (["classify", "{images}", "{images}", "--labels", "a,b"], "no pathclip.json in it"),
    "empty folder": (["classify", "{model}", "{tmp}/empty", "--labels", "a,b"], "empty: no pictures in it"),
    "pattern": (["classify", "{model}", "{tmp}/*.bmp", "--labels", "a,b"], "*.bmp: matches no file"),
    "precision": (
        ["classify", "{model}", "{images}", "--labels", "a,b", "--precision", "int4"],
        "'int4' is none of auto, int8, fp32",
    ),
    "missing precision": (
        ["classify", "{model}", "{images}", "--labels", "a,b", "--precision", "fp32"],
        "no image tower in fp32",
    ),
    "no pictures": (["index", "{model}", "{tmp}/gone"], "gone: no such folder of pictures"),
    "no index": (["search", "{tmp}/gone.index", "red"], "no such index; make one: pathclip index"),
    "not an index": (["search", "{images}", "red"], "no meta.json in it, so it is no index"),
    "k": (["search", "{index}", "red", "-k", "0"], "-k must be at least 1, not 0"),
    "empty query": (["search", "{index}", "  "], "the text is empty"),
    "no query": (["search", "{index}"], "give either a text or --image"),
    "two queries": (["search", "{index}", "red", "--image", "x.png"], "give either a text or --image"),
    "query in another encoding": (["search", "{index}", "caf\udce9"], "a text is not valid Unicode"),
    "label in another encoding": (
        ["classify", "{model}", "{images}", "--labels", "caf\udce9,b"],
        "a text is not valid Unicode",
    ),
    "query image": (["search", "{index}", "--image", "{tmp}/gone.png"], "gone.png: no such file"),
    "not replaced": (["index", "{model}", "{images}", "--out", "{images}"], "exists and is no index"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_status_1(call, tmp_path, tiny_model, images, index, name):
    (tmp_path / "empty").mkdir()
    arguments, message = MISTAKES[name]
    places = {"{model}": tiny_model, "{images}": images, "{index}": index, "{tmp}": tmp_path}
    for mark, place in places.items():
        arguments = [argument.replace(mark, str(place)) for argument in arguments]
    status, out, err = call(*arguments)
    assert (status, out, len(err)) == (1, "", 1)
    assert err[0].startswith(f"pathclip {arguments[0]}: ")
    assert message in err[0]


@pytest.mark.parametrize(
    "arguments", [["classify"], ["search", "x", "y", "z"], ["index", "m", "i", "--fast"]]
)
def test_a_wrong_call_gets_status_2_and_the_usage(call, arguments):
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err[0].startswith(f"Usage: pathclip {arguments[0]}")


def test_a_changed_model_is_refused(call, tmp_path, images):
    model = write_tiny_model(tmp_path / "m")
    break_file(model / "onnx/image_int8.onnx")
    status, out, err = call("classify", model, images, "--labels", "red,blue")
    assert (status, out, len(err)) == (1, "", 1)
    assert "SHA-256" in err[0]


def test_index_counts_and_names_what_it_could_not_read(call, tmp_path, tiny_model, images):
    (images / "bad.jpg").write_bytes(b"no picture")
    status, out, err = call("index", tiny_model, images, "--out", tmp_path / "b.index")
    assert (status, out) == (0, f"{tmp_path / 'b.index'}: 3 pictures by onnx int8; 1 could not be read\n")
    assert len(err) == 1
    assert "bad.jpg" in err[0]


def test_a_text_finds_its_picture(call, index, images):
    status, out, _ = call("search", index, "a green slide", "-k", 2, "--json")
    document = json.loads(out)
    assert status == 0
    assert document["query"] == {"text": "a green slide"}
    assert [hit["rank"] for hit in document["hits"]] == [1, 2]
    assert document["hits"][0]["path"] == str(images / "green.png")


def test_a_picture_finds_itself(call, index, images):
    _, out, _ = call("search", index, "--image", images / "blue.png", "-k", 1)
    assert out == f"1  +1.000  {images / 'blue.png'}\n"


def test_an_index_is_searched_with_the_model_that_made_it_only(call, tmp_path, index):
    other = write_tiny_model(tmp_path / "other", ["onnx/image_int8.onnx", "onnx/text_fp32.onnx"])
    status, _, err = call("search", index, "red", "--model", other)
    assert status == 1
    assert "the index was made by model" in err[0]


def record_runtime(index: Path, runtime: str | None) -> None:
    meta = json.loads((index / "meta.json").read_text())
    assert meta["model"].pop("runtime") == "onnx"
    meta["model"] |= {"runtime": runtime} if runtime else {}
    (index / "meta.json").write_text(json.dumps(meta))


def test_an_index_is_searched_with_the_runtime_that_made_it(call, index):
    record_runtime(index, "tensorrt")
    status, _, err = call("search", index, "red")
    assert (status, len(err)) == (1, 1)
    assert "runtime: 'tensorrt' is none of" in err[0]


def test_an_index_by_openvino_says_what_to_do_where_that_is_not_installed(call, index, monkeypatch):
    record_runtime(index, "openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not there
    status, _, err = call("search", index, "red")
    assert (status, len(err)) == (1, 1)
    assert "made by OpenVINO, which does not work here: pip install 'pathclip[openvino]'" in err[0]


def test_an_older_index_that_names_no_runtime_is_searched_all_the_same(call, index, images):
    record_runtime(index, None)
    status, out, _ = call("search", index, "green", "-k", 1)
    assert (status, out.split()[-1]) == (0, str(images / "green.png"))


def test_an_index_is_searched_with_a_second_export_of_the_same_model(call, tmp_path, index):
    again = write_tiny_model(tmp_path / "again")
    (again / "gate.json").write_text('{"images_per_second": 61}')
    (again / "README.md").write_text("61 images/s")
    list_files_again(again)
    assert call("search", index, "red", "--model", again)[0] == 0


def test_a_model_that_moved_is_asked_for(call, tmp_path, images):
    model = write_tiny_model(tmp_path / "m")
    call("index", model, images, "--out", tmp_path / "c.index")
    model.rename(tmp_path / "moved")
    status, _, err = call("search", tmp_path / "c.index", "red")
    assert status == 1
    assert "name it: --model FOLDER" in err[0]
    assert call("search", tmp_path / "c.index", "red", "--model", tmp_path / "moved")[0] == 0


def test_pipeline_help_lists_groups_with_choices_and_keys(call, tmp_path, monkeypatch):
    (tmp_path / "loss").mkdir()
    (tmp_path / "debug").mkdir()
    (tmp_path / "debug/tiny.yaml").touch()
    for loss in ("clip", "multi_positive"):
        (tmp_path / "loss" / f"{loss}.yaml").touch()
    (tmp_path / "train.yaml").write_text(
        "defaults:\n  - _self_\n  - loss@_global_: multi_positive\n  - optional debug: null\n"
        "\nseed: 3  # of everything\nsplit:  # shares\n  _target_: x.Y\n  val: 0.1\nhydra:\n  job: 1\n"
    )
    monkeypatch.setattr(pipeline, "config_dir", lambda: tmp_path)
    status, out, _ = call("train", "--help", "model=lite")
    assert status == 0
    assert "  loss   clip, [multi_positive]\n" in out
    assert "  debug  tiny\n" in out
    keys = [line.split() for line in out.split("Keys:")[1].split("`")[0].splitlines() if line.strip()]
    assert keys == [["seed=3", "of", "everything"], ["split.…", "shares"], ["split.val=0.1"]]
    assert "--cfg job" in out


@pytest.mark.parametrize(
    ("verb", "example"),
    [(verb, example) for verb, examples in pipeline.EXAMPLES.items() for example in examples],
)
def test_the_examples_of_a_pipeline_verb_compose(verb, example):
    from pathclip.launch import compose

    words = [word for word in example.split() if not word.startswith("-")]
    sweep = "-m" in example.split()
    compose(verb, [word.split(",")[0] if sweep else word for word in words])


@pytest.mark.parametrize("verb", ["curate", "train", "evaluate", "export"])
def test_a_pipeline_verb_becomes_its_module_with_all_arguments(monkeypatch, verb):
    started = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    with pytest.raises(TypeError):  # execve never returns; here it does, and gives None
        cli.main([verb, "-m", "optim.lr=1e-4,1e-5", "--cfg", "job"])
    python = sys.executable
    ((program, arguments, environment),) = started
    assert program == python
    assert arguments == [python, "-m", f"pathclip.{verb}", "-m", "optim.lr=1e-4,1e-5", "--cfg", "job"]
    # What else the environment holds (a node's rank, the visible devices) is handed on.
    assert environment == {**os.environ, "PYTHONSAFEPATH": "1"}


def test_a_pipeline_verb_imports_nothing_from_the_working_directory(tmp_path):
    for name in ("yaml", "datasets", "hydra", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working directory')")
    # -P, because the installed program has no working directory on its path either; it is not inherited.
    pathclip = [sys.executable, "-P", "-c", "from pathclip.cli import main; main()"]
    done = subprocess.run([*pathclip, "curate", "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "source:" in done.stdout


@pytest.mark.parametrize("verb", ["curate", "train", "evaluate", "export", "demo"])
def test_without_the_extra_a_verb_says_what_to_install(call, monkeypatch, verb):
    monkeypatch.setattr(pipeline, "find_spec", lambda name: None)
    status, _, err = call(verb)
    assert (status, len(err)) == (1, 1)
    assert "pip install 'pathclip[" in err[0]


# A process that is forked inherits its parent's peak memory, and this test's own process may hold gigabytes
# of torch: so a bare interpreter starts the command and reads what it took.
MEASURE = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_classify_starts_cold_within_its_budget(tiny_model, images):
    arguments = ["classify", str(tiny_model), str(images), "--labels", "red,blue"]
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "pathclip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, processor_seconds, peak_mib = json.loads(done.stdout)
    assert status == 0
    # Processor time, because the wall clock of a shared machine says little.
    assert processor_seconds < 1.5
    assert peak_mib < 200


def test_the_command_writes_no_colour_codes_and_survives_a_closed_pipe(tiny_model, images):
    pathclip = [sys.executable, "-m", "pathclip"]
    arguments = ["classify", str(tiny_model), str(images), "--labels", "red,blue"]
    done = subprocess.run(pathclip + arguments, capture_output=True, env={**os.environ, "FORCE_COLOR": "1"})
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr

    with subprocess.Popen(pathclip + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
