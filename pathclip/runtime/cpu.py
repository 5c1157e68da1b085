"""What this machine's processor can do with int8, as far as the system tells.

Under a user-mode emulator /proc/cpuinfo is the host's, so the features are too.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pathclip.runtime.cores import available_cores

CPUINFO = Path("/proc/cpuinfo")
FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
# Lines of the first processor's block, on any system; what follows is the same for the others.
_MOST_LINES = 200


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Attributes:
        name: as the system tells it.
        features: instruction-set flags, lower case.
        vnni: int8 products are summed in 32 bits (AVX-512 VNNI or AVX-VNNI).
        amx_int8: whole tiles of int8 are multiplied at once.
        avx2: integers of 256 bits.
        dotprod: as `vnni`, on ARM.
        i8mm: int8 matrix products, on ARM.
        cores: physical cores that this process may use.
        per_cycle: int8 operations that one core can start per cycle; 0 where unknown.
        instruction: by which.
        clock: MHz; 0 where unknown.
        clock_source: who says so.
    """

    name: str
    features: frozenset[str]
    vnni: bool
    amx_int8: bool
    avx2: bool
    dotprod: bool
    i8mm: bool
    cores: int
    per_cycle: int
    instruction: str
    clock: float
    clock_source: str

    @property
    def int8_peak(self) -> float:
        """Estimated int8 operations per second of all cores, a product and a sum being two; 0 if unknown."""
        return self.per_cycle * self.cores * self.clock * 1e6

    @property
    def how(self) -> str:
        """How `int8_peak` was come by."""
        if not self.int8_peak:
            return "unknown: the system tells neither the instruction set nor the clock"
        return (
            f"{self.per_cycle} int8 operations per cycle ({self.instruction}) × {self.cores} cores × "
            f"{self.clock:.0f} MHz ({self.clock_source})"
        )

    @property
    def exact_u8s8(self) -> bool:
        """Whether products of uint8 and int8 are summed without saturation."""
        return self.vnni or self.amx_int8 or self.dotprod or self.i8mm


@lru_cache(maxsize=1)
def cpu() -> Cpu:
    """The processor of this machine; what cannot be found out is empty, false or 0."""
    try:
        fields = _linux()
    except OSError:
        fields = _elsewhere()
    return from_fields(fields, available_cores())


def from_fields(fields: Mapping[str, str], cores: int) -> Cpu:
    """The processor that a block of /proc/cpuinfo describes.

    Args:
        fields: its lines by lower-case key; `max mhz` for the highest clock, where it is known.
        cores: physical cores.
    """
    name = next((fields[key] for key in ("model name", "cpu", "hardware") if fields.get(key)), "")
    features = frozenset((fields.get("flags") or fields.get("features") or "").lower().split())
    clock, source = _clock(fields)
    per_cycle, why = operations_per_cycle(features, fields.get("vendor_id", ""), fields.get("cpu family", ""))
    return Cpu(
        name=name or platform.processor() or platform.machine(),
        features=features,
        vnni=bool(features & {"avx512_vnni", "avx512vnni", "avx_vnni", "avxvnni"}),
        amx_int8="amx_int8" in features,
        avx2="avx2" in features,
        dotprod=bool(features & {"asimddp", "dotprod"}),
        i8mm="i8mm" in features,
        cores=cores,
        per_cycle=per_cycle,
        instruction=why,
        clock=clock,
        clock_source=source,
    )


def operations_per_cycle(features: frozenset[str], vendor: str = "", family: str = "") -> tuple[int, str]:
    """int8 operations (a product and a sum are two) that one core can start per cycle, and by what.

    From the width of the instruction and the number of units that execute it, as the makers' optimisation
    guides and uops.info give them. Without VNNI three instructions do what one does with it, two of them on
    the multipliers: half of one 256-bit `vpmaddubsw` per cycle and multiplier.
    """
    if "amx_int8" in features:
        return 2048, "AMX, one tile product in 16 cycles"
    if features & {"avx512_vnni", "avx512vnni"}:
        # AMD's family 25 (Zen 4) executes 512 bits in two halves; others have two units.
        units = 1 if vendor == "AuthenticAMD" and family == "25" else 2
        return 128 * units, f"AVX-512 VNNI, {units} of 512 bits"
    if features & {"avx_vnni", "avxvnni"}:
        return 128, "AVX-VNNI, 2 of 256 bits"
    if "avx512bw" in features:
        return 128, "AVX-512 without VNNI: vpmaddubsw and vpmaddwd on 2 units"
    if "avx2" in features:
        return 64, "AVX2: vpmaddubsw and vpmaddwd on 2 units"
    if "i8mm" in features:
        return 128, "i8mm, 2 of 128 bits"
    if features & {"asimddp", "dotprod"}:
        return 64, "dot products, 2 of 128 bits"
    return 0, "no instruction known"


def _clock(fields: Mapping[str, str]) -> tuple[float, str]:
    """Clock in MHz and where it comes from."""
    for key, source in (("max mhz", "highest, from the system"), ("cpu mhz", "as the system reports it")):
        try:
            if (value := float(fields.get(key, ""))) > 0:
                return value, source
        except ValueError:
            continue
    return 0.0, "unknown"


def _linux() -> dict[str, str]:
    """The first processor's block; the rest of the file may take long, as each clock is asked for."""
    fields: dict[str, str] = {}
    with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for _, line in zip(range(_MOST_LINES), lines, strict=False):
            if not line.strip():
                break
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    with contextlib.suppress(OSError, ValueError):
        fields["max mhz"] = str(int(FREQUENCY.read_text()) / 1000)
    return fields


def _elsewhere() -> dict[str, str]:
    """The same from py-cpuinfo, which asks macOS and Windows; it takes a second there."""
    try:
        import cpuinfo

        info = cpuinfo.get_cpu_info()
    except Exception:  # a processor that nothing is known of is no reason to stop
        info = {}
    flags = [str(flag) for flag in info.get("flags") or []]
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        flags.append("asimddp")  # every Apple M has it; the system lists no flags
    hertz = (info.get("hz_advertised") or [0])[0]
    return {
        "model name": str(info.get("brand_raw") or ""),
        "vendor_id": str(info.get("vendor_id_raw") or ""),
        "cpu family": str(info.get("family") or ""),
        "flags": " ".join(flags),
        "max mhz": str(hertz / 1e6) if isinstance(hertz, int | float) else "",
    }
