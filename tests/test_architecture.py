"""Imports go one way, and what runs a model never imports torch: checked in the source and in a process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pathclip

PACKAGE = Path(pathclip.__file__).resolve().parent
# A part imports only parts above it.
ORDER = [
    *("errors", "types", "atomic", "config", "model_folder", "progress", "page", "launch"),
    *("runtime", "index", "slides", "serve"),
    *(
        "sources",
        "curate",
        "shards",
        "model",
        "train",
        "evaluate",
        "export",
        "demo",
        "commands",
        "cli",
        "__main__",
    ),
]
# And so do the rooms of a part that has many.
ROOMS = {"export": ["calibration", "graphs", "quantiser", "gate", "search", "reporting"]}
LIGHT = [
    "errors",
    "types",
    "atomic",
    "config",
    "model_folder",
    "progress",
    "page",
    "runtime",
    "index",
    "slides",
    "serve",
]
COMMAND_LINE = ["commands", "cli", "__main__"]
HEAVY = {"torch", "torchvision", "lightning", "hydra", "omegaconf", "open_clip", "timm", "transformers"}
# Curation writes shards and rewrites those that hold deleted posts; both sides of the format are in `shards`.
EXCEPTIONS = {("curate", "pathclip.shards.writer"), ("curate", "pathclip.shards.reader")}
# `pathclip.load(…, runtime="torch")`, inside the function.
ROOT_MAY_IMPORT = {
    "pathclip.errors",
    "pathclip.types",
    "pathclip.model_folder",
    "pathclip.runtime",
    "pathclip.model.torch_encoder",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Every module that a tree imports, at any depth, with the names taken from packages of ours."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they reach"
            module = node.module or ""
            found.add(module)
            if module.split(".")[0] == "pathclip":
                found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def names(file: Path) -> set[str]:
    return imports(ast.parse(file.read_text(encoding="utf-8")))


def reaches(imported: str, allowed: set[str]) -> bool:
    return any(imported == name or imported.startswith(f"{name}.") for name in allowed)


def test_every_part_has_its_place_in_the_order():
    assert {part(file) for file in MODULES} - {"__init__"} <= set(ORDER)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_part_imports_only_parts_above_it(file):
    mine = part(file)
    ours = {name for name in names(file) if name.startswith("pathclip.")}
    if mine == "__init__":
        assert {name for name in ours if not reaches(name, ROOT_MAY_IMPORT)} == set()
        return
    below = {
        name
        for name in ours
        if name.split(".")[1] in ORDER
        and ORDER.index(name.split(".")[1]) > ORDER.index(mine)
        and not any(mine == who and reaches(name, {what}) for who, what in EXCEPTIONS)
    }
    # `from pathclip.shards import writer` also names the package itself.
    below -= {what.rpartition(".")[0] for who, what in EXCEPTIONS if who == mine and what in ours}
    assert below == set()


@pytest.mark.parametrize(
    "file",
    [file for file in MODULES if part(file) in ROOMS and len(file.relative_to(PACKAGE).parts) > 2],
    ids=lambda file: file.relative_to(PACKAGE).as_posix(),
)
def test_a_room_imports_only_rooms_before_it(file):
    house, room = file.relative_to(PACKAGE).parts[:2]
    rooms = ROOMS[house]
    entered = {name.split(".")[2] for name in names(file) if name.startswith(f"pathclip.{house}.")}
    assert entered <= set(rooms[: rooms.index(room) + 1])


@pytest.mark.parametrize(
    "file",
    [file for file in MODULES if part(file) in [*LIGHT, *COMMAND_LINE]],
    ids=lambda file: file.relative_to(PACKAGE).as_posix(),
)
def test_what_runs_a_model_names_no_heavy_package(file):
    assert {name.split(".")[0] for name in names(file)} & HEAVY == set()


def test_the_root_imports_torch_only_inside_load():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    load = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load")
    inside = imports(load)
    outside = set().union(*(imports(node) for node in tree.body if node is not load))
    assert "pathclip.model.torch_encoder" in inside
    assert not any(name.startswith("pathclip.model.") for name in outside)
    assert {name.split(".")[0] for name in inside | outside} & HEAVY == set()


def test_importing_the_runtime_and_the_command_line_loads_nothing_heavy():
    modules = ["pathclip.cli"]
    for file in MODULES:
        if part(file) in [*LIGHT, "commands"]:
            dotted = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
            modules.append(dotted.removesuffix(".__init__"))
    assert "pathclip.runtime.encoder" in modules
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_overview_imports_neither_typer_nor_numpy():
    code = (
        "import sys\nfrom pathclip.cli import main\nmain(['--help'])\n"
        "sys.exit(any(name in sys.modules for name in ('typer', 'numpy', 'rich', 'PIL', 'onnxruntime')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
    )


def test_classifying_imports_nothing_heavy_and_no_rich(tmp_path, tiny_model):
    from tests.tiny_model import write_image

    picture = write_image(tmp_path / "a.png", "red")
    code = (
        "import sys\nfrom pathclip.cli import main\n"
        f"assert main(['classify', {str(tiny_model)!r}, {str(picture)!r}, '--labels', 'red,blue']) == 0\n"
        f"print(*sorted(({HEAVY!r} | {{'rich', 'scipy', 'matplotlib', 'onnx'}}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_the_check_sees_imports_inside_functions():
    tree = ast.parse(
        "def f():\n    if True:\n        from pathclip.train import train\n        import torch.nn\n"
    )
    assert imports(tree) == {"pathclip.train", "pathclip.train.train", "torch.nn"}
