"""What can go wrong on the user's side. Each message says what, where, and what to do next."""

from __future__ import annotations


class PathclipError(Exception):
    """A mistake or a fault that a person can act on; the command line prints its message alone."""


class ConfigError(PathclipError):
    """A key or a value of a configuration is wrong."""


class DataError(PathclipError):
    """Input data is missing or malformed; the message names the file and, where known, the line."""


class ModelFolderError(PathclipError):
    """A model folder is missing a file, was changed, or holds what must not be loaded."""
