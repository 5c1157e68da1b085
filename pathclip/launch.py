"""Runs a pipeline verb under Hydra, and turns a wrong key or value into one clear line."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.config import config_dir, nearest
from pathclip.errors import ConfigError, PathclipError, escaped_lines

# Hydra's own switches, after which overrides need no check of ours because nothing is run.
_HYDRA_ONLY = ("--help", "-h", "--hydra-help", "--version", "--info", "-i")
# Somebody's own configs: Hydra's messages name their files, ours would not.
_OWN_CONFIGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
# A full disk, a folder without rights, a file where a folder should be: nothing for a traceback.
_OF_THE_MACHINE = (
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
)
_TAKE_VALUE = ("--cfg", "-c", "--package", "-p")


@dataclass(frozen=True, slots=True)
class SweepJob:
    """One job of a sweep (`-m`) after it ran.

    Attributes:
        overrides: those of the command line, with this job's choices: 'optim.lr=1e-4'.
        folder: where it ran.
        config: what it ran with.
        message: why it failed; None if it did not.
    """

    overrides: tuple[str, ...]
    folder: Path
    config: Any
    message: str | None = None


def compose(verb: str, overrides: list[str] | None = None) -> Any:
    """Composes the config of a verb as the command line would.

    Args:
        verb: 'curate', 'train', 'evaluate' or 'export'.
        overrides: as typed: 'key=value', '+key=value', '~key'.

    Returns:
        The composed `DictConfig`, interpolations unresolved.

    Raises:
        ConfigError: an override names no key, no option or is not well-formed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
            named = _for_hydra(verb, overrides or [])
            return hydra_compose(config_name=verb, overrides=named, return_hydra_config=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(verb, error, overrides or [])) from None


def launch(
    verb: str,
    run: Callable[[Any], Any],
    argv: list[str] | None = None,
    out_is_run_folder: bool = True,
    after_sweep: Callable[[Path, Sequence[SweepJob]], None] | None = None,
) -> int:
    """Runs `run(cfg)` under `hydra.main` and returns the process's exit status.

    A mistake of the user's gives one line on stderr and status 1; an interrupt gives 130. Everything
    else keeps its traceback, because it is ours to mend.

    Args:
        verb: the config root.
        run: what a job does.
        argv: the overrides; those of the process if None.
        out_is_run_folder: whether `out` is where Hydra keeps its record of the run.
        after_sweep: gets the sweep's folder and its jobs, in their order, also when some failed or when the
            sweep was interrupted. Not called where a launcher of Hydra's runs jobs in other processes.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    arguments = list(sys.argv[1:] if argv is None else argv)
    own_configs = any(word.split("=")[0] in _OWN_CONFIGS for word in arguments)
    if not own_configs:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    failure: list[BaseException] = []
    started = False
    jobs: list[SweepJob] = []
    sweep_folder = Path()

    @hydra.main(config_path=str(config_dir()), config_name=verb, version_base="1.3")
    def main(cfg: Any) -> Any:
        nonlocal sweep_folder, started
        started = True
        # In a sweep every job gets a folder of its own, whatever `out` says.
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        with open_dict(cfg):
            if out_is_run_folder:
                cfg.out = HydraConfig.get().runtime.output_dir
            elif sweeping:
                cfg.out = f"{HydraConfig.get().runtime.output_dir}/{Path(str(cfg.out)).name}"
        logging.captureWarnings(True)
        message = None
        try:
            return run(cfg)
        except (PathclipError, OmegaConfBaseException) as error:
            # Raised on, Hydra would print lines of its own; so a sweep also goes on with its other jobs.
            message = escaped_lines(error if isinstance(error, PathclipError) else _first_line(error))
            print(f"pathclip {verb}: {message}", file=sys.stderr)
            failure.append(error)
            return None
        except KeyboardInterrupt:
            message = "stopped"
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {_first_line(error)}"
            raise
        finally:
            if sweeping:
                hydra_cfg = HydraConfig.get()
                sweep_folder = Path(hydra_cfg.sweep.dir)
                folder = Path(hydra_cfg.runtime.output_dir)
                jobs.append(SweepJob(tuple(hydra_cfg.overrides.task), folder, cfg, message))

    try:
        if not own_configs and not any(word in _HYDRA_ONLY for word in arguments):
            _check(verb, arguments)
        sys.argv = [f"pathclip {verb}", *_for_hydra(verb, arguments)]
        try:
            main()
        finally:
            if after_sweep and jobs:
                after_sweep(sweep_folder, jobs)
    except PathclipError as error:
        print(f"pathclip {verb}: {escaped_lines(error)}", file=sys.stderr)
        return 1
    except OmegaConfBaseException as error:
        print(f"pathclip {verb}: {escaped_lines(_first_line(error))}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as raised:
        # Where the log cannot be opened, Python's logging has the reason as the cause of a ValueError.
        fault = raised if isinstance(raised, OSError) else raised.__cause__
        if not isinstance(fault, OSError) or (started and fault.errno not in _OF_THE_MACHINE):
            raise
        what = fault.strerror
        if fault.errno in (errno.EEXIST, errno.ENOTDIR):
            what = "a file, not a folder; name another out"
        elif not started:
            what = f"cannot be written to ({what}); name another out"
        print(f"pathclip {verb}: {escaped_lines(fault.filename or 'writing')}: {what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"pathclip {verb}: stopped", file=sys.stderr)
        return 130
    return 1 if failure else 0


def _for_hydra(verb: str, overrides: list[str]) -> list[str]:
    """What users type, in the words that Hydra needs.

    `experiment=x` sets keys of the whole config, so that line 1 of the file can be its command and not
    Hydra's `@package`. `model=folder` of a verb that reads a model goes under a key of its own, because
    Hydra takes `model` for a choice of the config group of that name; the roots of those verbs hold
    `model_folder` and `model: ${model_folder}`. `augment=x` of training belongs to `data`.
    """
    if verb == "train" and ("-m" in overrides or "--multirun" in overrides):
        # The folder of a sweep is named as that of a run is.
        overrides = [re.sub(r"^out=(?=[^,]*$)", "hydra.sweep.dir=", word) for word in overrides]
    words = [re.sub(r"^(\+{0,2})experiment=", r"\1experiment@_global_=", word) for word in overrides]
    if verb == "train":
        return [re.sub(r"^(\+{0,2})augment=", r"\1augment@data.augment=", word) for word in words]
    return [re.sub(r"^(\+{0,2})model=", r"\1model_folder=", word) for word in words]


def _check(verb: str, arguments: list[str]) -> None:
    """Composes once before Hydra does, so that the message is ours; of a sweep the first choices."""
    overrides = []
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in _TAKE_VALUE:
            skip = True
        elif not word.startswith("-"):
            if "=" not in word and not word.startswith("~"):
                raise ConfigError(f"'{word}' is no override; write key=value, as in out=runs/first")
            overrides.append(word)
    sweeping = "-m" in arguments or "--multirun" in arguments
    compose(verb, _first_choices(overrides) if sweeping else overrides)


def _first_choices(overrides: list[str]) -> list[str]:
    """Each override with the first of its choices; those whose choices Hydra finds later are left out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    chosen = []
    for word in overrides:
        try:
            (override,) = parser.parse_overrides([word])
            if not override.is_sweep_override():
                chosen.append(word)
            elif override.is_discrete_sweep() and not isinstance(override.value(), Glob):
                chosen.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}")
        except HydraException as error:
            raise ConfigError(_explain("", error, [word])) from None
    return chosen


def _explain(verb: str, error: Exception, overrides: list[str]) -> str:
    """One line that says which override is wrong and what would be right."""
    from hydra.errors import OverrideParseException

    text = str(error)
    if isinstance(error, OverrideParseException):
        typed = dict(zip(_for_hydra(verb, overrides), overrides, strict=True))
        return _malformed(typed.get(error.override, error.override), _first_line(error))
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        return _new_entry(verb, key, overrides) or f"'{key}': there is no such key.{nearest_key(verb, key)}"
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", text):
        group, name = match.groups()
        options = sorted(p.stem for p in (config_dir() / group).glob("*.yaml"))
        if options and not name:
            return f"{group}=: name at least one. Known: {', '.join(options)}"
        if options:
            return f"{group}={name}: there is no such config.{nearest(name, options)}"
    if match := re.search(r"Could not override '?(\S+?)'?\.? ?No match", text):
        return f"'{match.group(1)}': there is no such config group.{nearest_key(verb, match.group(1))}"
    if match := re.search(r"Key '([^']+)' is not in struct", text):
        return f"'{match.group(1)}': there is no such key.{nearest_key(verb, match.group(1))}"
    return _first_line(error)


def _malformed(word: str, reason: str) -> str:
    """What Hydra's grammar does not take, and how it is written instead, in quotes for the shell."""
    key, _, value = word.partition("=")
    parent, _, name = key.rpartition(".")
    if " " in name and parent:
        inside = f"{{{name}: {value or '…'}}}"
        return f"'{key}': no key that is typed can have a space; write \"{parent}={inside}\""
    if value and value[0] not in "'\"" and not (value[0] in "[{" and value[-1] in "]}"):
        quoted = value.replace("'", "\\'")
        return f"'{word}': Hydra needs inner quotes around such a value: \"{key}='{quoted}'\""
    reason = reason.partition("Exception: ")[2] or reason
    return f"'{word}': not well-formed ({reason}); a text with signs such as ^ or + in it needs inner quotes"


def _new_entry(verb: str, key: str, overrides: list[str]) -> str:
    """How an entry is added to a mapping that is free to have more; '' if that is not what went wrong."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import DictConfig, OmegaConf

    word = next((word for word in overrides if word.startswith(f"{key}=")), None)
    if word is None:
        return ""
    try:
        cfg = compose(verb, [other for other in overrides if not other.startswith(f"{key}=")])
    except ConfigError:  # another of them is wrong too, and is told next
        return ""
    given = OverridesParser.create().parse_override(word).value()
    place = OmegaConf.select(cfg, key)
    if isinstance(place, DictConfig) and isinstance(given, dict):
        new = next((str(name) for name in given if str(name) not in place), "")
        if new:
            added = f"+{key}={{{new}: …}}"
            return f"'{key}' has no entry '{new}'; to add it to those that are there: \"{added}\""
        return ""
    parent, _, name = key.rpartition(".")
    mapping, owner = (OmegaConf.select(cfg, path) for path in (parent, parent.rpartition(".")[0]))
    # A built object takes its own keys only, but a mapping that is an argument of one takes any.
    if isinstance(mapping, DictConfig) and "_target_" not in mapping and "_target_" in (owner or ()):
        return f"'{parent}' has no entry '{name}'; to add it to those that are there: +{key}=…"
    return ""


def nearest_key(verb: str, key: str) -> str:
    """The hint with the nearest valid keys of the verb's default config."""
    root = (config_dir() / f"{verb}.yaml").read_text(encoding="utf-8")
    groups = {folder.name for folder in config_dir().iterdir() if f"- {folder.name}" in root}
    known = {*_keys(compose(verb)), *groups}
    last = key.rsplit(".", 1)[-1]
    same_name = [name for name in known if name.rsplit(".", 1)[-1] == last]
    if same_name and key not in same_name:
        return f" Did you mean {' or '.join(sorted(same_name)[:3])}?"
    hint = nearest(key, known)
    if not hint and (parent := key.rpartition(".")[0]) in known:
        inner = [name for name in known if name.startswith(f"{parent}.")]
        return nearest(key, inner) or f" Known: {', '.join(sorted(inner)[:20])}."
    return hint or f" `pathclip {verb} --cfg job` shows every key."


def _keys(node: Any, prefix: str = "") -> list[str]:
    from omegaconf import DictConfig

    found: list[str] = []
    for name in node:
        key = f"{prefix}{name}"
        found.append(key)
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            found += _keys(child, f"{key}.")
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    if key and "Missing mandatory value" in lines[0]:
        return f"{key}: a value is needed, as in {key}=…"
    return f"{key}: {lines[0]}" if key else (lines[0] if lines else type(error).__name__)
