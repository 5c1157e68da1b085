"""SigLIP's tokenizer, a model of sentencepiece, as a `tokenizer.json`."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from pathclip.errors import ModelFolderError
from pathclip.model_folder import MAX_JSON_BYTES

SPACE = "▁"  # how sentencepiece writes a space
_END, _UNKNOWN = "</s>", "<unk>"
_UNIGRAM = 1


def siglip_tokenizer_json(file: Path) -> str:
    """The tokenizer of transformers' `SiglipTokenizer` in the format of the `tokenizers` package.

    Texts lose their ASCII punctuation and capitals first (Zhai et al. 2023), by the tokenizer itself.

    Args:
        file: `spiece.model`.

    Raises:
        ModelFolderError: no model of sentencepiece, or one of another kind than unigram.
    """
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    if file.stat().st_size > MAX_JSON_BYTES:
        raise ModelFolderError(f"{file}: larger than {MAX_JSON_BYTES >> 20} MiB, refused")
    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf raises kinds of its own
        raise ModelFolderError(f"{file}: no model of sentencepiece") from error
    names = [piece.piece for piece in model.pieces]
    if model.trainer_spec.model_type != _UNIGRAM or _END not in names:
        raise ModelFolderError(f"{file}: no unigram model with a piece {_END}, as SigLIP's is")
    unknown = model.trainer_spec.unk_id
    tokenizer = Tokenizer(
        models.Unigram(
            [(piece.piece, piece.score) for piece in model.pieces], unk_id=unknown, byte_fallback=False
        )
    )
    punctuation = "".join(f"\\{mark}" for mark in string.punctuation)
    steps = [
        normalizers.Replace(SPACE, " "),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(f"[{punctuation}]"), ""),
        normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "),
        normalizers.Strip(),
    ]
    characters = model.normalizer_spec.precompiled_charsmap
    if characters:
        steps += [normalizers.Precompiled(characters), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    end = names.index(_END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, end)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, lstrip=True, rstrip=True, normalized=False) for name in (_END, names[unknown])]
    )
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)
