"""Where the configs lie, and how a node with a `_target_` becomes an object.

The builder takes any mapping, so nothing here needs Hydra or OmegaConf: the runtime can import it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathclip.errors import ConfigError

ALLOWED_TARGETS = ("pathclip.", "lightning.", "torch.optim.")
_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """The folder of the Hydra configs: the checkout's `conf/` if there is one, else the wheel's copy."""
    return _bundled("conf")


def data_dir() -> Path:
    """The folder of vocabularies and templates: the checkout's `data/`, else the wheel's copy."""
    return _bundled("data")


def _bundled(name: str) -> Path:
    checkout = _PACKAGE.parent
    # A pyproject.toml beside it tells a checkout from a site-packages folder with some other `data`.
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    return _PACKAGE / name


def build(node: Any, key: str = "", **given: Any) -> Any:
    """Builds the object that a config node describes.

    Args:
        node: a mapping with `_target_` (dotted name of a class or function) and its arguments; inner
            mappings with a `_target_` are built first. `_partial_: true` gives `functools.partial`.
            Anything else is returned as plain Python.
        key: where the node stands in the config, for messages.
        **given: arguments that code passes beside the node's own.

    Raises:
        ConfigError: the target lies outside `ALLOWED_TARGETS`, an argument is unknown, missing or of
            the wrong type, or the constructor itself refuses a value.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            return _build_target(node, key, given)
        return {str(name): build(value, _join(key, str(name))) for name, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return [build(value, f"{key}[{position}]") for position, value in enumerate(node)]
    return node


def check_values(
    cfg: Mapping[str, Any], expected: Mapping[str, Any], at_least: Mapping[str, float] | None = None
) -> None:
    """Refuses plain values of the wrong type before anything is done with them.

    YAML 1.2 reads `no` as a word, and `bool("no")` is true: without a check, `force=no` forces.

    Args:
        cfg: a config, plain or of OmegaConf.
        expected: key → type, as an annotation would say it: `bool`, `int | None`, `list[str]`. Dots lead
            into inner mappings: `bootstrap.resamples`.
        at_least: key → the least number that is allowed; a null passes where its type lets it.

    Raises:
        ConfigError: a key is missing, or its value is of another type or too small; names key, expectation
            and value.
    """
    least = at_least or {}
    for key, hint in expected.items():
        value = _value(cfg, key)
        too_small = key in least and isinstance(value, int | float) and value < least[key]
        if too_small or not _fits(value, hint):
            bound = f" of at least {least[key]:g}" if key in least else ""
            raise ConfigError(f"{key}: expected {_type_name(hint)}{bound}, got {value!r}")


def output_folder(cfg: Mapping[str, Any], key: str = "out") -> Path:
    """The folder that a command writes to; it need not exist yet.

    Raises:
        ConfigError: no folder is named, or a file stands where it or one of its parents should be.
    """
    value = _value(cfg, key)
    if value is None or not str(value).strip():
        raise ConfigError(f"{key}: name a folder to write to, as in {key}=outputs/first")
    folder = Path(str(value))
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is not None and not existing.is_dir():
        raise ConfigError(f"{key}: {existing} is a file, not a folder; name another")
    return folder


def nearest(word: str, known: typing.Iterable[str], n: int = 3) -> str:
    """A hint ' Did you mean a, b?' with the nearest of `known`, or the whole list if it is short."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=n, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    return f" Known: {', '.join(names)}." if 0 < len(names) <= 20 else ""


def _value(cfg: Mapping[str, Any], key: str) -> Any:
    value: Any = cfg
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise ConfigError(f"{key}: a value is needed, none was given")
        value = value[name]
    return value


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _build_target(node: Mapping[Any, Any], key: str, given: Mapping[str, Any]) -> Any:
    dotted = str(node["_target_"])
    target = _locate(dotted, key)
    arguments = {
        str(name): build(value, _join(key, str(name)))
        for name, value in node.items()
        if name not in ("_target_", "_partial_")
    }
    partial = bool(node.get("_partial_", False))
    _check_arguments(target, {**arguments, **given}, key, partial)
    if partial:
        import functools

        return functools.partial(target, **arguments, **given)
    try:
        return target(**arguments, **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key or dotted}: {error}") from error


def _locate(dotted: str, key: str) -> Any:
    if not dotted.startswith(ALLOWED_TARGETS):
        raise ConfigError(
            f"{_join(key, '_target_')}: '{dotted}' is refused; targets must begin with "
            f"{', '.join(ALLOWED_TARGETS)}"
        )
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name and not dotted.startswith(error.name):
                raise ConfigError(
                    f"{dotted} needs the package '{error.name}': pip install 'pathclip[train]'"
                ) from error
            continue
        try:
            for name in parts[cut:]:
                found = getattr(found, name)
        except AttributeError:
            break
        # An allowed module imports others: without this, pathclip.atomic.os.system would pass.
        if not f"{getattr(found, '__module__', None)}.".startswith(ALLOWED_TARGETS):
            raise ConfigError(f"{_join(key, '_target_')}: '{dotted}' is refused; it lies in another package")
        return found
    raise ConfigError(f"{_join(key, '_target_')}: there is no '{dotted}'")


def _check_arguments(target: Any, arguments: Mapping[str, Any], key: str, partial: bool) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = None
    else:
        known = [name for name, p in parameters.items() if p.kind is not p.VAR_POSITIONAL]
    for name in arguments:
        if known is not None and name not in known:
            raise ConfigError(f"{_join(key, name)}: unknown key.{nearest(name, known)}")
    if not partial:
        for name, p in parameters.items():
            required = p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            if required and name not in arguments:
                raise ConfigError(f"{_join(key, name)}: a value is needed, none was given")
    hints = _type_hints(target)
    for name, value in arguments.items():
        if name in hints and not _fits(value, hints[name]):
            raise ConfigError(f"{_join(key, name)}: expected {_type_name(hints[name])}, got {value!r}")


def _type_name(hint: Any) -> str:
    """A type in the words of a message."""
    if hint is bool:
        return "bool (true or false)"
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is None and hasattr(hint, "__name__"):
        return str(hint.__name__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # What no config can hold, such as a tensor, would only puzzle.
        choices = [choice for choice in typing.get_args(hint) if not _is_foreign(choice)]
        return " or ".join(map(_type_name, choices))
    return str(hint).replace("typing.", "")


def _is_foreign(hint: Any) -> bool:
    return getattr(hint, "__module__", "").split(".")[0] in ("torch", "numpy")


def _type_hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # a hint of a foreign library that does not resolve is no mistake of the user's
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value can be what the annotation says; unknown annotations fit."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if isinstance(hint, type) and isinstance(value, str | int | float):
        # A plain value where a foreign class stands, as in torch's `lr: float | Tensor`.
        return isinstance(value, hint) or issubclass(hint, Path)
    return True
