from __future__ import annotations

from pathlib import Path

import pytest

from pathclip.runtime.choice import Measured, keep, recall
from pathclip.runtime.prompt_cache import PromptCache
from pathclip.runtime.user_cache import user_cache

CASES = {
    "named": ({"PATHCLIP_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
    "named below home": ({"PATHCLIP_CACHE": "~/c", "HOME": "/h"}, "/h/c"),
    "named below the home of nobody": ({"PATHCLIP_CACHE": "~no-such-user/c", "HOME": "/h"}, None),
    "named as nothing": ({"PATHCLIP_CACHE": "", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, None),
    "by the system": ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/pathclip"),
    "below home": ({"HOME": "/h"}, "/h/.cache/pathclip"),
    "relative": ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache/pathclip"),
    "no home": ({}, None),
    "an empty home": ({"HOME": "", "XDG_CACHE_HOME": ""}, None),
    "a relative home": ({"HOME": "."}, None),
}


@pytest.fixture
def variables(monkeypatch):
    """Sets the variables that matter to these alone."""

    def only(given: dict[str, str]) -> None:
        for name in ("PATHCLIP_CACHE", "XDG_CACHE_HOME", "HOME", "USERPROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return only


@pytest.mark.parametrize("case", CASES)
def test_the_cache_lies_where_the_environment_says_and_never_in_the_working_directory(variables, case):
    given, expected = CASES[case]
    variables(given)
    assert user_cache() == (Path(expected) if expected else None)


@pytest.mark.parametrize("case", ["named as nothing", "named below the home of nobody", "no home"])
def test_without_a_cache_nothing_is_kept_and_nothing_fails(variables, case, tmp_path, monkeypatch):
    variables(CASES[case][0])
    monkeypatch.chdir(tmp_path)
    keep("key", {name: Measured(1.0, 1.0) for name in ("onnx", "openvino")})
    assert recall("key") is None
    assert PromptCache.of_user() is None
    assert not list(tmp_path.iterdir())
