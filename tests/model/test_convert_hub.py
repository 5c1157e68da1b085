"""A model of the hub is fetched from a server that speaks the hub's language on the loopback interface."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from pathclip import cli
from pathclip.model.convert.hub import hub_id
from pathclip.model_folder import open_model_folder
from tests.model.foreign_models import BERT, MODEL, write_bert_tokenizer, write_open_clip, write_transformers
from tests.model.hub_server import COMMIT, hub


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    top = tmp_path_factory.mktemp("hub")
    plip = write_transformers(top / "plip")
    torch.save(load_file(plip / "model.safetensors"), plip / "pytorch_model.bin")
    (plip / "README.md").write_text("---\nlicense: other\nlicense_name: 'research only'\n---\n")
    (plip / "modeling_plip.py").write_text("raise SystemExit('remote code was run')")
    (plip / "training_args.bin").write_bytes(b"a pickle")
    bert = top / "bert"
    bert.mkdir()
    (bert / "config.json").write_text(json.dumps(BERT))
    text = {"hf_model_name": str(bert), "hf_tokenizer_name": "org/bert", "context_length": 20}
    more = {"hf_model_pretrained": False, "hf_proj_type": "mlp", "hf_pooler_type": "cls_pooler"}
    quilt = write_open_clip(top / "quilt", {**MODEL, "text_cfg": {**text, **more}})
    write_bert_tokenizer(quilt)
    described = json.loads((quilt / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"]["hf_model_name"] = "org/bert"
    (quilt / "open_clip_config.json").write_text(json.dumps(described))
    weights = quilt / "open_clip_model.safetensors"
    torch.save(load_file(weights), quilt / "open_clip_pytorch_model.bin")
    weights.unlink()
    return {"vinid/plip": plip, "org/quilt": quilt, "org/bert": bert, "org/empty": bert}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command against a hub; gives status, stdout and stderr."""

    def call(address, *arguments):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        status = cli.main(["import", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_a_model_of_the_hub_is_fetched_without_what_is_not_read(repositories, tmp_path, run):
    with hub(repositories) as (address, asked):
        status, _, err = run(address, "vinid/plip", "--revision", "v1", "--out", tmp_path / "plip")
    assert (status, err) == (0, "")
    folder = open_model_folder(tmp_path / "plip")
    assert folder.card["name"] == "plip" and folder.card["licence"] == "research only"
    assert folder.card["source"]["source"] == "vinid/plip"
    assert folder.card["source"]["revision"] == COMMIT
    assert f"vinid/plip at revision `{COMMIT}`" in (tmp_path / "plip" / "README.md").read_text()
    names = {one.removeprefix("vinid/plip/") for one in asked}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert names & {"modeling_plip.py", "training_args.bin", "pytorch_model.bin"} == set()


def test_pickled_weights_and_the_config_of_a_text_tower_are_fetched_where_they_are_needed(
    repositories, tmp_path, run
):
    with hub(repositories) as (address, asked):
        status, _, err = run(address, "hf-hub:org/quilt", "--out", tmp_path / "quilt")
    assert (status, err) == (0, "")
    assert {"org/quilt/open_clip_pytorch_model.bin", "org/bert/config.json"} <= set(asked)
    folder = open_model_folder(tmp_path / "quilt")
    assert folder.has("text/config.json") and folder.has("open_clip_model.safetensors")
    assert folder.card["text_cleaning"] == "whitespace"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["org/gone"], "neither a file nor a folder here, and the hub has no such model"),
        (["vinid/plip", "--revision", "v9"], "the hub has no such --revision"),
        (["org/empty"], "no weights in it; expected one of model.safetensors"),
        (["vinid/plip", "--sha256", "0" * 64], "its SHA-256 is"),
    ],
)
def test_what_the_hub_has_not_is_one_line(repositories, tmp_path, run, arguments, message):
    with hub(repositories) as (address, _):
        status, out, err = run(address, *arguments, "--out", tmp_path / "out")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("pathclip import: ") and message in err
    assert not (tmp_path / "out").exists()


def test_without_a_network_one_line_says_so(tmp_path, run):
    status, out, err = run("http://127.0.0.1:9", "vinid/plip", "--out", tmp_path / "out")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "vinid/plip: neither a file nor a folder here, and the hub cannot be reached" in err
    assert "hf download vinid/plip --local-dir plip" in err


def test_a_folder_that_is_here_is_never_asked_of_the_hub(repositories, tmp_path, run, monkeypatch):
    shutil.copytree(repositories["vinid/plip"], tmp_path / "vinid" / "plip")
    monkeypatch.chdir(tmp_path)
    assert run("http://127.0.0.1:9", "vinid/plip", "--out", "out")[::2] == (0, "")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("vinid/plip", "vinid/plip"),
        ("hf-hub:org/a.b-c_d", "org/a.b-c_d"),
        *((one, None) for one in ("plip", "a/b/c", "../x", "/abs", "a/..", "https://x/y", "~/x")),
    ],
)
def test_a_hub_id_is_an_owner_and_a_name(source, found):
    assert hub_id(source) == found


def test_a_large_file_beside_the_weights_is_not_fetched(repositories, tmp_path, run):
    folder = shutil.copytree(repositories["vinid/plip"], tmp_path / "plip")
    with (folder / "README.md").open("wb") as file:
        file.truncate(65 << 20)  # of nothing: it takes no room
    with hub({"vinid/plip": folder}) as (address, asked):
        status, _, err = run(address, "vinid/plip", "--out", tmp_path / "out")
    assert status == 1 and "vinid/plip: README.md is larger than 64 MiB, refused" in err
    assert asked == []
