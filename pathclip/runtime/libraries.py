"""Versions of the libraries that compute: numbers and speed depend on them."""

from __future__ import annotations

# Runtime, as `Encoder.runtime` has it → the packages that its numbers come from.
LIBRARIES = {
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "torch": ("torch", "open_clip_torch", "timm", "transformers"),
}


def versions(*packages: str) -> dict[str, str]:
    """Package → version, of those that are installed; none of them is imported."""
    from importlib.metadata import PackageNotFoundError, version  # 0.02 s that a short call need not pay

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
