"""What `preprocessor_config.json` of CLIP or SigLIP says, as a `Preprocess`: exactly, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pathclip.errors import ModelFolderError
from pathclip.runtime.preprocess import Preprocess

# All are one and the same class under the names of several versions.
KINDS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
SIGLIP_KINDS = ("SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil")
_SIGLIP = {
    **{"size": {"height": 224, "width": 224}, "do_center_crop": False},
    **{"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
}
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_SIDE = 224


def siglip_preprocess(values: Mapping[str, Any], name: str) -> Preprocess:
    """As `clip_preprocess`, of `SiglipImageProcessor`."""
    return clip_preprocess({**_SIGLIP, **values}, name, SIGLIP_KINDS)


def clip_preprocess(values: Mapping[str, Any], name: str, kinds: Sequence[str] = KINDS) -> Preprocess:
    """The `Preprocess` that gives what `CLIPImageProcessor` gives where it resizes with Pillow.

    Its other backend resizes with torchvision, whose pixels differ from Pillow's by one level of 255 here
    and there; CLIP and what was tuned from it learnt with Pillow's.

    Args:
        values: of the file; what is missing is as the class has it.
        name: of the file, for messages.
        kinds: names of the class.

    Raises:
        ModelFolderError: steps that a `Preprocess` cannot express; names the key.
    """
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or kinds[0]
    if kind not in kinds:
        raise ModelFolderError(f"{name}: image_processor_type {kind!r} is none of {', '.join(kinds)}")
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if values.get(key, True) is not True:
            raise ModelFolderError(f"{name}: {key}={values[key]!r} cannot be expressed here; it must be true")
    if values.get("do_pad"):
        raise ModelFolderError(f"{name}: do_pad={values['do_pad']!r} cannot be expressed here")
    factor = values.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise ModelFolderError(f"{name}: rescale_factor={factor!r} cannot be expressed; it must be 1/255")
    resample = values.get("resample", 3)
    if not isinstance(resample, int) or resample not in _INTERPOLATION:
        raise ModelFolderError(f"{name}: resample={resample!r} is neither 2 (bilinear) nor 3 (bicubic)")
    size, mode = _size(values, name)
    try:
        return Preprocess.from_card(
            {
                "size": size,
                "mean": values.get("image_mean"),
                "std": values.get("image_std"),
                "interpolation": _INTERPOLATION[resample],
                "resize_mode": mode,
                "crop_offset": "floor",
                "draft": 0,
            }
        )
    except ModelFolderError as error:
        raise ModelFolderError(f"{name}: {error}") from None


def _size(values: Mapping[str, Any], name: str) -> tuple[list[int], str]:
    """(height, width) of the result, and how a picture is brought to it."""
    square = bool(values.get("default_to_square", False))
    size = _sides(values.get("size", {"shortest_edge": _SIDE}), square, "size", name)
    crop = None
    if values.get("do_center_crop", True):
        crop = _sides(values.get("crop_size", _SIDE), True, "crop_size", name)
    if len(size) == 2 and crop in (None, size):
        return size, "squash"
    if len(size) == 1 and crop == size * 2:
        return crop, "shortest"
    cut = f"a cut of {' x '.join(map(str, crop))}" if crop else "no cut"
    how = "shorter side of " if len(size) == 1 else ""
    raise ModelFolderError(
        f"{name}: a {how}{' x '.join(map(str, size))} with {cut} cannot be expressed here; the cut must be "
        "square with the sides of the resized picture's shorter one"
    )


def _sides(value: Any, square: bool, key: str, name: str) -> list[int]:
    """One number for the shorter side, two for height and width."""
    found: Any = None
    if isinstance(value, Mapping):
        given = {side: number for side, number in value.items() if number is not None}
        if set(given) == {"shortest_edge"}:
            found = [given["shortest_edge"]]
        elif set(given) == {"height", "width"}:
            found = [given["height"], given["width"]]
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        found = list(value)
    elif isinstance(value, int):
        found = [value, value] if square else [value]
    if found is None or not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
        raise ModelFolderError(f"{name}: {key}={value!r} cannot be expressed here")
    return found
