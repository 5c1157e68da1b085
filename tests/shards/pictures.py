"""Small pictures for the tests of augmentation."""

import io

import numpy as np
from PIL import Image

from pathclip.shards.decode import EncodedPicture


def noise(seed=0, size=32):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def smooth(width=320, height=240, seed=0):
    """Coloured clouds: a picture that survives JPEG and shrinking."""
    return noise(seed, 6).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(image=None, kind="PNG", **options):
    return EncodedPicture(encoded(noise() if image is None else image, kind, **options), "a")
