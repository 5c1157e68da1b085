from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pathclip.cli import main
from pathclip.errors import ConfigError
from pathclip.model_folder import open_model_folder
from pathclip.runtime.bench import CONTENDERS, Contender, Timed, bench, reason_against
from pathclip.runtime.cpu import cpu
from pathclip.runtime.energy import EnergyMeter
from pathclip.runtime.macs import count_macs, float_peak
from tests.runtime.quantised_model import PATCH, WIDTH, write_quantised_model
from tests.tiny_model import DIM, SIZE, break_file, list_files_again, write_tiny_model

BY_ONNX = [Contender("onnx", "fp32"), Contender("onnx", "int8")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_quantised_model(tmp_path_factory.mktemp("quantised") / "model")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def only_onnx(monkeypatch):
    monkeypatch.setattr("pathclip.runtime.openvino_encoder.find_spec", lambda name: None)


def test_every_contender_is_timed_or_says_why_not(model, only_onnx):
    found = bench(open_model_folder(model), cpu(), 1, seconds=0.01, batches=(1, 16))
    assert [*found.timed] == BY_ONNX
    assert {*found.timed} | {*found.missing} == {*CONTENDERS}
    assert "keep_torch=true" in found.missing[Contender("torch", "fp32")]
    assert "pathclip[openvino]" in found.missing[Contender("openvino", "int8")]
    for timed in found.timed.values():
        assert {batch: len(rates) for batch, rates in timed.rates.items()} == {1: 5, 16: 5}
        assert len(timed.latencies) >= 5
        assert timed.peak and 20e6 < timed.peak < 2e9


def test_the_command_prints_json_and_keeps_what_auto_goes_by(model, cache, capsys):
    pytest.importorskip("openvino")
    assert main(["bench", str(model), "--seconds", "0.01", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    ran = {(one["runtime"], one["precision"]): one for one in document["runtimes"]}
    assert {("onnx", "int8"), ("openvino", "int8"), ("openvino", "fp32")} <= set(ran)
    assert [*ran["onnx", "int8"]["per_second"]] == ["1", "8", "16", "32"]
    assert document["auto"]["precision"] == "int8"
    (kept,) = json.loads((cache / "runtimes.json").read_text()).values()
    rate = kept["measured"]["onnx"]["rate"]
    assert rate == pytest.approx(ran["onnx", "int8"]["per_second"]["16"], rel=0.01)


def test_the_table_of_texts_says_what_could_not_run(model, only_onnx, capsys, cache):
    assert main(["bench", str(model), "--seconds", "0.01", "--text", "--threads", "1"]) == 0
    table = capsys.readouterr().out
    assert "texts per second" in table
    assert "torch fp32        not run: the folder has no safetensors" in table
    assert not cache.exists()


def test_a_runtime_that_fails_is_listed_with_its_message(model, tmp_path, only_onnx):
    import shutil

    copy = shutil.copytree(model, tmp_path / "copy")
    break_file(copy / "onnx/image_fp32.onnx")
    found = bench(open_model_folder(copy, verify=False), cpu(), 1, seconds=0.01, batches=(1, 16))
    assert [*found.timed] == BY_ONNX[1:]
    assert "SHA-256" in found.missing[BY_ONNX[0]]


def test_a_folder_with_nothing_to_run_is_refused(tmp_path):
    folder = open_model_folder(write_tiny_model(tmp_path / "m", []))
    with pytest.raises(ConfigError, match="nothing in it runs here"):
        bench(folder, cpu(), 1)


def test_bfloat16_is_left_out_where_the_processor_has_none(model):
    pytest.importorskip("openvino")
    bf16, folder = Contender("openvino", "bf16"), open_model_folder(model)
    assert reason_against(bf16, folder, replace(cpu(), features=frozenset())) is not None
    assert reason_against(bf16, folder, replace(cpu(), features=frozenset({"avx512_bf16"}))) is None


def test_ratios_are_formed_within_rounds():
    slow, fast = Timed(0.0, {16: [10.0, 1.0, 10.0]}), Timed(0.0, {16: [20.0, 2.0, 200.0]})
    assert fast.ratio(slow) == 2.0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_products_are_counted_alike_in_fp32_and_in_qdq(model, precision):
    tokens = (SIZE // PATCH) ** 2
    expected = tokens * WIDTH * 3 * PATCH**2 + 2 * tokens * WIDTH * WIDTH + WIDTH * DIM
    folder = open_model_folder(model)
    (other,) = {"fp32", "int8"} - {precision}
    files = {name: one for name, one in folder.card["files"].items() if f"image_{other}" not in name}
    assert count_macs(replace(folder, card={**folder.card, "files": files}), "image") == (expected, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"changed", "SHA-256"), (b"not onnx", "Error parsing message"), (None, "no ONNX of the image tower")],
)
def test_products_that_cannot_be_counted_have_a_reason(tmp_path, content, reason):
    folder = write_tiny_model(tmp_path / "m", [] if content is None else ["onnx/image_int8.onnx"])
    if content is not None:
        (folder / "onnx/image_int8.onnx").write_bytes(content)
    if content == b"not onnx":
        list_files_again(folder)
    macs, why = count_macs(open_model_folder(folder, verify=False), "image")
    assert macs is None
    assert reason in why


def test_nothing_is_imported_from_the_working_directory(model, only_onnx, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    found = bench(open_model_folder(model), cpu(), 1, seconds=0.01, batches=(1, 16))
    assert not (tmp_path / "was run").exists()
    assert [*found.timed] == BY_ONNX


def test_a_worker_tells_whatever_goes_wrong_in_one_line(model):
    worker = [sys.executable, "-m", "pathclip.runtime.bench_worker"]
    done = subprocess.run(
        [*worker, str(model), "onnx", "int8", "two", "images"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["error"].startswith("ValueError: invalid literal")
    assert done.stderr == ""


def test_a_processor_with_vnni_has_four_int8_operations_for_one_of_fp32():
    machine = replace(cpu(), amx_int8=False, vnni=True, per_cycle=8, cores=2, clock=25.0)
    assert float_peak(machine) == 100e6
    assert float_peak(replace(machine, vnni=False, dotprod=False, i8mm=False, avx2=False)) == 0


def write_package(folder, name: str, energy: int) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{energy}\n")
    (folder / name / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_summed_over_packages_not_their_parts_and_past_the_counters_end(tmp_path):
    for name, energy in (("intel-rapl:0", 999_000_000), ("intel-rapl:1", 5_000_000), ("intel-rapl:0:0", 0)):
        write_package(tmp_path, name, energy)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    for name, energy in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 8_000_000), ("intel-rapl:0:0", 9)):
        write_package(tmp_path, name, energy)
    assert meter.told
    np.testing.assert_allclose(meter.joules(before), 2.0 + 3.0)


def test_a_machine_that_tells_no_energy_is_known(tmp_path):
    assert not EnergyMeter(tmp_path).told
