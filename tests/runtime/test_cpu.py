"""What is read off /proc/cpuinfo of different processors, and that nothing makes it fail."""

from __future__ import annotations

import sys
import time

import pytest

from pathclip.runtime import cpu as module
from pathclip.runtime.cpu import cpu, from_fields, operations_per_cycle

ZEN_4 = {
    "vendor_id": "AuthenticAMD",
    "cpu family": "25",
    "model name": "AMD EPYC 9354",
    "cpu mhz": "2500.0",
    "flags": "sse2 avx2 avx512f avx512bw avx512_vnni",
}
HASWELL = {"vendor_id": "GenuineIntel", "model name": "Xeon E5", "max mhz": "3000", "flags": "sse2 AVX2 fma"}
GRAVITON = {"features": "fp asimd asimddp i8mm", "cpu mhz": "2600"}


def test_vnni_is_told_from_its_absence():
    assert from_fields(ZEN_4, 2).vnni and from_fields(ZEN_4, 2).exact_u8s8
    without = from_fields(HASWELL, 2)
    assert without.avx2 and not without.vnni and not without.exact_u8s8
    assert from_fields({"flags": "avx2 avx_vnni"}, 2).vnni


def test_features_are_lower_case_and_the_name_is_the_systems():
    found = from_fields(HASWELL, 2)
    assert found.features == {"sse2", "avx2", "fma"} and found.name == "Xeon E5"


def test_arm_sums_in_32_bits():
    found = from_fields(GRAVITON, 4)
    assert found.dotprod and found.i8mm and found.exact_u8s8 and not (found.vnni or found.avx2)


def test_tiles_of_int8_are_seen():
    found = from_fields({"flags": "avx512_vnni amx_int8"}, 1)
    assert found.amx_int8 and operations_per_cycle(found.features)[0] == 2048


def test_the_peak_is_operations_per_cycle_times_cores_times_clock_and_says_so():
    found = from_fields(ZEN_4, 2)
    assert found.int8_peak == 128 * 2 * 2500e6
    assert found.how == (
        "128 int8 operations per cycle (AVX-512 VNNI, 1 of 512 bits) × 2 cores × 2500 MHz "
        "(as the system reports it)"
    )
    assert from_fields(HASWELL, 2).int8_peak == 64 * 2 * 3000e6
    assert "highest, from the system" in from_fields(HASWELL, 2).how


def test_the_highest_clock_goes_before_the_present_one():
    assert from_fields({**ZEN_4, "max mhz": "3700"}, 1).int8_peak == 128 * 3700e6


@pytest.mark.parametrize(
    "fields", [{}, {"flags": "", "cpu mhz": "unknown"}, {"cpu mhz": "-1", "flags": "avx2"}]
)
def test_a_processor_that_tells_nothing_has_no_peak(fields):
    found = from_fields(fields, 1)
    assert found.int8_peak == 0 and found.how.startswith("unknown") and found.name


def test_only_the_first_processors_block_is_read(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: first\nflags\t\t: avx2\n\nmodel name\t: second\nflags\t\t: avx512_vnni\n")
    monkeypatch.setattr(module, "CPUINFO", file)
    monkeypatch.setattr(module, "FREQUENCY", tmp_path / "absent")
    assert module._linux() == {"model name": "first", "flags": "avx2"}


@pytest.mark.parametrize("package", ["absent", "broken"])
def test_without_the_systems_file_and_the_package_there_still_is_an_answer(package, tmp_path, monkeypatch):
    if package == "broken":
        (tmp_path / "cpuinfo.py").write_text("def get_cpu_info(): raise RuntimeError('no such processor')\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cpuinfo", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "cpuinfo", None)
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "absent")
    found = cpu.__wrapped__()
    assert found.cores >= 1 and not found.vnni and found.name


def test_the_package_tells_what_the_file_would(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo.py").write_text(
        "def get_cpu_info():\n    return {'brand_raw': 'A chip', 'vendor_id_raw': 'GenuineIntel', "
        "'flags': ['avx2'], 'hz_advertised': [3000000000, 0]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cpuinfo", raising=False)
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "absent")
    found = cpu.__wrapped__()
    assert found.name == "A chip" and found.avx2 and found.int8_peak == 64 * found.cores * 3e9


@pytest.mark.skipif(not module.CPUINFO.is_file(), reason="no /proc/cpuinfo")
def test_asking_takes_a_moment():
    start = time.perf_counter()
    found = cpu.__wrapped__()
    assert time.perf_counter() - start < 0.05 and found.features
    assert cpu() is cpu()
