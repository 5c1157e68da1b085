"""What a reader needs to repeat a run or to doubt it: models, data, code, machine, packages, time spent."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from pathclip.evaluate.profile import Part, Profile
from pathclip.evaluate.reporting.headlines import by_task
from pathclip.evaluate.reporting.plots import bar_chart
from pathclip.evaluate.reporting.report import Section, html_table
from pathclip.runtime.cpu import cpu
from pathclip.runtime.libraries import versions
from pathclip.types import Score

PACKAGES = (
    *("numpy", "pillow", "onnxruntime", "openvino", "torch", "open_clip_torch", "timm", "transformers"),
    *("scikit-learn", "scipy", "pyarrow"),
)
_SHORT = 16  # digits of a hash that are shown; `report.json` has all of them


def provenance_section(
    models: Sequence[Mapping[str, Any]], scores: Sequence[Score], settings: Mapping[str, Any]
) -> Section:
    """Hashes, versions and the machine as a table.

    Args:
        models: role, name, precision, runtime and model_hash of each encoder.
        scores: of the run; their context names the data.
        settings: `code_version`, `seed` and `resamples`.
    """
    rows = [
        (
            f"{one['role']}, {one['precision']}",
            f"{one['name']} by {one['runtime']}, weights {str(one['model_hash'])[:_SHORT] or 'not known'}",
        )
        for one in models
    ]
    for task, own in by_task(scores).items():
        context = own[0].context
        groups = context.get("groups")
        unit = f"{groups} groups" if context.get("grouped") else "groups not known"
        rows.append(
            (f"data of {task}", f"{str(context.get('data_hash', ''))[:_SHORT]}, n = {own[0].n}, {unit}")
        )
    rows += [
        ("code", f"pathclip {settings.get('code_version') or 'not known'}"),
        ("seed, resamples", f"{settings.get('seed')}, {settings.get('resamples')}"),
        ("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("CPU", cpu().name),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in package_versions().items())),
    ]
    table = html_table(["", ""], [[escape(key), escape(value)] for key, value in rows], plain=2)
    return Section("Where these figures come from", table, "Hashes are SHA-256, shortened; see report.json.")


def profile_section(profile: Profile) -> Section:
    """Where the time went: seconds of each part, and the share of the encoders."""
    parts = profile.table()
    main = [part for part in parts if not part.beside]
    chart = bar_chart([_part_name(part) for part in main], {"seconds": [part.seconds for part in main]})
    rows = [
        [
            escape(_part_name(part)) + (" (beside)" if part.beside else ""),
            f"{part.seconds:.2f}",
            "" if part.share is None else f"{part.share:.1%}",
            f"{part.processor:.2f}",
            str(part.calls),
        ]
        for part in parts
    ]
    caption = (
        f"{profile.seconds:.1f} s in all, {profile.share():.0%} of them in the encoders, which took "
        f"{profile.processor_share():.0%} of the processor time. What other threads did beside is not added."
    )
    table = html_table(["part", "seconds", "share", "processor seconds", "calls"], rows)
    return Section("Where the time went", chart + table, caption)


def package_versions() -> dict[str, str]:
    """Installed packages that a figure may depend on."""
    return versions(*PACKAGES)


def _part_name(part: Part) -> str:
    return f"{part.name}, {part.detail}" if part.detail else part.name
