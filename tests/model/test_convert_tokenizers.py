"""An imported folder's tokens are those of the source's own tokenizer, on a thousand captions."""

from __future__ import annotations

import csv
import json

import numpy as np
import open_clip
import pytest

from pathclip.errors import ModelFolderError
from pathclip.model.convert.sentencepiece_json import siglip_tokenizer_json
from pathclip.model.foreign_encoder import tokenizer_content
from pathclip.model.foreign_folder import open_foreign_folder
from pathclip.runtime.tokenizer import Tokenizer
from tests.model.captions import captions
from tests.model.foreign_models import (
    MODEL,
    write_bert_tokenizer,
    write_open_clip,
    write_sentencepiece,
    write_transformers,
)

CAPTIONS = captions()


def tokens(folder, texts=CAPTIONS):
    rules = open_foreign_folder(folder).text
    content, pad_id = tokenizer_content(folder, rules)
    return Tokenizer(content.encode(), rules.context_length, pad_id, rules.cleaning)(texts)


def of_transformers(tokenizer, length, texts=CAPTIONS):
    given = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "np"}
    return tokenizer(texts, **given)["input_ids"]


def assert_same(ours, theirs, texts=CAPTIONS):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape == (len(texts), ours.shape[1])
    assert [text for text, a, b in zip(texts, ours, theirs, strict=True) if (a != b).any()] == []
    assert len(np.unique(ours, axis=0)) > 0.8 * len(texts)


def test_a_thousand_captions_are_a_thousand():
    assert len(CAPTIONS) == 1000
    assert sum(not text.isascii() for text in CAPTIONS) > 500


def test_transformers_clip(tmp_path):
    from transformers import CLIPTokenizer

    folder = write_transformers(tmp_path / "m")
    assert_same(tokens(folder), of_transformers(CLIPTokenizer.from_pretrained(folder), 20))


def test_open_clips_own(tmp_path):
    folder = write_open_clip(tmp_path / "m")
    assert_same(tokens(folder), open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS))


def test_open_clip_with_a_tokenizer_of_transformers(tmp_path):
    text = {**MODEL["text_cfg"], "hf_tokenizer_name": "bert"}
    folder = write_open_clip(tmp_path / "m", {**MODEL, "text_cfg": text})
    write_bert_tokenizer(folder)
    ours, theirs = tokens(folder), open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    assert np.array_equal(ours, theirs.numpy())


def test_siglip(tmp_path):
    from transformers import SiglipTokenizer

    write_sentencepiece(tmp_path / "spiece.model")
    theirs = of_transformers(SiglipTokenizer(str(tmp_path / "spiece.model")), 64)
    content = siglip_tokenizer_json(tmp_path / "spiece.model")
    assert_same(Tokenizer(content.encode(), 64, 1)(CAPTIONS), theirs)


@pytest.mark.real_data
def test_captions_of_real_posts(tmp_path, shared_data):
    from transformers import CLIPTokenizer

    with (shared_data / "text/patchgastric_captions/captions.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    pairs = (shared_data / "pairs/patoloji_atlasi/pairs.jsonl").read_text(encoding="utf-8").splitlines()
    texts += [json.loads(line)["caption"] for line in pairs]
    assert len(texts) > 1000
    theirs = write_open_clip(tmp_path / "a")
    assert np.array_equal(
        tokens(theirs, texts), open_clip.get_tokenizer(f"local-dir:{theirs}")(texts).numpy()
    )
    folder = write_transformers(tmp_path / "b")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert np.array_equal(tokens(folder, texts), of_transformers(tokenizer, 20, texts))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\x05\x0a\x03abc"])
def test_what_is_no_model_of_sentencepiece_is_refused(content, tmp_path):
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"spiece\.model: no "):
        siglip_tokenizer_json(tmp_path / "spiece.model")
