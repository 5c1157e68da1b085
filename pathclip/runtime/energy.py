"""What the processor has consumed, where Linux tells (RAPL by powercap, mostly for the superuser only)."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("/sys/class/powercap")


class EnergyMeter:
    """Reads the counters of all processor packages.

    Attributes:
        told: whether there are any that this process may read.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        # 'intel-rapl:0' is a package (on AMD too); 'intel-rapl:0:1' a part of one, counted in it.
        packages = [one for one in sorted(folder.glob("intel-rapl:*")) if one.name.count(":") == 1]
        self._packages = [one for one in packages if _microjoules(one / "energy_uj") is not None]
        self.told = bool(self._packages)

    def read(self) -> list[int]:
        """The counters now, for `joules`."""
        return [_microjoules(one / "energy_uj") or 0 for one in self._packages]

    def joules(self, before: list[int]) -> float:
        """Consumed since `before`, by all packages and by whatever ran on them."""
        total = 0
        for package, then, now in zip(self._packages, before, self.read(), strict=True):
            # The counter begins again at its end; a slot is shorter than one round of it.
            round_ = _microjoules(package / "max_energy_range_uj") or 0
            total += now - then if now >= then else now - then + round_
        return total / 1e6


def _microjoules(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
