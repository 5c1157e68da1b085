from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

import pathclip
from pathclip.errors import ModelFolderError
from pathclip.model_folder import open_model_folder
from pathclip.runtime import choice
from pathclip.runtime.choice import Measured, faster, keep, key_of, recall, worth_asking
from pathclip.runtime.cores import available_cores
from pathclip.runtime.cpu import cpu
from tests.runtime.quantised_model import write_quantised_model

pytest.importorskip("openvino")
SLOW, FAST = Measured(0.2, 50.0), Measured(1.2, 80.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_quantised_model(tmp_path_factory.mktemp("quantised") / "model")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def on_vnni():
    if not worth_asking(cpu()):
        pytest.skip("this processor has no fast int8 for OpenVINO")


@pytest.fixture
def broken_openvino(tmp_path, monkeypatch):
    """An OpenVINO that is found and cannot be imported."""
    (tmp_path / "broken/openvino").mkdir(parents=True)
    (tmp_path / "broken/openvino/__init__.py").write_text("raise OSError('libopenvino.so is missing')")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "broken")


def key(model) -> str:
    return key_of(open_model_folder(model), "int8", available_cores())


def test_many_pictures_take_the_faster_and_few_the_one_that_starts_sooner():
    measured = {"onnx": SLOW, "openvino": FAST}
    assert faster(measured) == faster(measured, 10_000) == "openvino"
    assert faster(measured, 100) == "onnx"


def test_another_runtime_must_be_faster_by_more_than_noise():
    assert faster({"onnx": SLOW, "openvino": Measured(0.2, 52.0)}) == "onnx"
    assert faster({"onnx": SLOW, "openvino": Measured(0.2, 53.0)}) == "openvino"


def test_avx2_without_vnni_is_not_worth_asking():
    old = replace(cpu(), avx2=True, vnni=False, amx_int8=False, dotprod=False, i8mm=False)
    assert not worth_asking(old)
    assert worth_asking(replace(old, vnni=True))


def test_nothing_is_measured_for_an_unknown_number_or_a_few(model, cache):
    assert pathclip.load(model).runtime == "onnx"
    assert pathclip.load(model, pictures=choice.MEASURE_FROM - 1).runtime == "onnx"
    assert not cache.exists()


def test_many_pictures_are_reason_to_measure_and_it_is_kept(model, on_vnni):
    encoder = pathclip.load(model, pictures=choice.MEASURE_FROM)
    measured = recall(key(model))
    assert measured
    assert set(measured) == {"onnx", "openvino"}
    assert encoder.runtime == faster(measured, choice.MEASURE_FROM)


def test_what_was_measured_decides_and_a_few_pictures_do_not_ask(model, on_vnni):
    keep(key(model), {"onnx": SLOW, "openvino": replace(FAST, opening=0.0)})
    assert pathclip.load(model).runtime == "openvino"
    assert pathclip.load(model, pictures=choice.FEW).runtime == "onnx"
    assert pathclip.load(model, precision="fp32").runtime == "onnx"
    assert pathclip.load(model, threads=available_cores() + 1).runtime == "onnx"


def test_a_measurement_that_takes_too_long_is_given_up(model):
    encoders, measured = choice.measure(open_model_folder(model), "int8", 1, seconds=60, most=0)
    assert ([*encoders], measured) == (["onnx"], None)


def test_a_broken_openvino_is_not_taken_though_it_was_the_faster(model, on_vnni, broken_openvino):
    keep(key(model), {"onnx": SLOW, "openvino": FAST})
    assert pathclip.load(model).runtime == "onnx"


def test_a_broken_openvino_ends_the_measuring_not_the_call(model, on_vnni, broken_openvino, cache):
    assert pathclip.load(model, pictures=choice.MEASURE_FROM).runtime == "onnx"
    assert not cache.exists()


def test_a_broken_openvino_that_is_asked_for_is_one_line(model, broken_openvino):
    message = r"OpenVINO is installed but cannot be imported \(libopenvino.so is missing\): [^\n]*onnx\Z"
    with pytest.raises(ModelFolderError, match=message):
        pathclip.load(model, "openvino").encode_texts(["red"])


def test_a_runtime_that_is_asked_for_is_taken_whatever_was_measured(model):
    keep(key(model), {"onnx": SLOW, "openvino": FAST})
    assert pathclip.load(model, "onnx").runtime == "onnx"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"KEY": 1}', b'{"KEY": {"measured": {"onnx": {"rate": 1}}}}']
)
def test_a_damaged_file_is_ignored_and_replaced(model, cache, content):
    cache.mkdir()
    (cache / choice.FILE).write_bytes(content.replace(b"KEY", key(model).encode()))
    assert recall(key(model)) is None
    keep(key(model), {"onnx": SLOW, "openvino": FAST})
    assert recall(key(model)) == {"onnx": SLOW, "openvino": FAST}


@pytest.mark.parametrize("rate", [0, -1, "fast", None, float("inf"), float("nan")])
def test_a_rate_that_no_measurement_gives_is_ignored(model, cache, rate):
    cache.mkdir()
    one = {"opening": 1.0, "rate": rate}
    entry = {"at": 1, "measured": {"onnx": one, "openvino": one}}
    (cache / choice.FILE).write_text(json.dumps({key(model): entry}))
    assert recall(key(model)) is None


def test_the_oldest_of_too_many_goes(cache):
    for number in range(choice._MOST_ENTRIES + 2):
        keep(f"{number}", {"onnx": SLOW, "openvino": FAST})
    kept = json.loads((cache / choice.FILE).read_text())
    assert len(kept) == choice._MOST_ENTRIES
    assert recall("0") is recall("1") is None
    assert recall("2") == {"onnx": SLOW, "openvino": FAST}


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "file" / "below"))
    keep("key", {"onnx": SLOW, "openvino": FAST})
    assert recall("key") is None
