"""Readers: from tables, shards and the forms that public sets ship in to pictures with classes or texts.

Nothing is held here, and nothing decoded but what a label depends on: `contents` reads the encoded bytes
again whenever asked.
"""

from pathclip.evaluate.datasets.annotated import mhist, sicap
from pathclip.evaluate.datasets.class_folders import bach, folders, kather, lc25000
from pathclip.evaluate.datasets.labelled import (
    Contents,
    LabelledData,
    LabelledImages,
    MultiLabelData,
    MultiLabelImages,
    TextPairs,
)
from pathclip.evaluate.datasets.large_pictures import digestpath
from pathclip.evaluate.datasets.named_files import breakhis, wsss4luad, wsss4luad_multi_label
from pathclip.evaluate.datasets.pannuke_arrays import pannuke
from pathclip.evaluate.datasets.parts import hash_share
from pathclip.evaluate.datasets.pcam_arrays import pcam
from pathclip.evaluate.datasets.rows import table
from pathclip.evaluate.datasets.sharded import labelled_shards, shards

__all__ = [
    "Contents",
    "LabelledData",
    "LabelledImages",
    "MultiLabelData",
    "MultiLabelImages",
    "TextPairs",
    "bach",
    "breakhis",
    "digestpath",
    "folders",
    "hash_share",
    "kather",
    "labelled_shards",
    "lc25000",
    "mhist",
    "pannuke",
    "pcam",
    "shards",
    "sicap",
    "table",
    "wsss4luad",
    "wsss4luad_multi_label",
]
