"""What the README of every model folder says, whoever wrote it."""

from __future__ import annotations

NOTICE = "**Research software. Not a medical device; not for diagnosis.**"
USAGE = (
    "```python",
    "import pathclip",
    "",
    'encoder = pathclip.load("this-folder")',
    "vectors = encoder.encode_images(images)",
    "```",
)
