"""Text to token ids with the `tokenizers` package, for CLIP's BPE and for WordPiece models alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError, ModelFolderError
from pathclip.model_folder import ModelFolder
from pathclip.runtime.text_cleaning import cleaner


class Tokenizer:
    """Reads a `tokenizer.json` and gives rows of a fixed length.

    Args:
        tokenizer_json: the file, or its content.
        context_length: tokens per row. Longer texts are cut so that the closing special token stays.
        pad_id: id that fills shorter rows; the text tower knows the padding by it.
        cleaning: what happens to a text first: 'lower', 'whitespace' or 'canonicalize', see
            `pathclip.runtime.text_cleaning`; nothing if None.

    Raises:
        ModelFolderError: the file is missing or is no tokenizer, or an unknown cleaning.
    """

    def __init__(
        self,
        tokenizer_json: Path | str | bytes,
        context_length: int,
        pad_id: int,
        cleaning: str | None = None,
    ) -> None:
        from tokenizers import Tokenizer as HuggingFaceTokenizer

        name = "tokenizer.json" if isinstance(tokenizer_json, bytes) else str(tokenizer_json)
        try:
            content = (
                tokenizer_json if isinstance(tokenizer_json, bytes) else Path(tokenizer_json).read_bytes()
            )
            self._tokenizer = HuggingFaceTokenizer.from_buffer(content)
        except FileNotFoundError:
            raise ModelFolderError(f"{name}: no such file") from None
        except Exception as error:  # the Rust side raises plain Exception
            raise ModelFolderError(f"{name}: not a tokenizer ({error})") from error
        self.context_length = context_length
        self.pad_id = pad_id
        self._clean = cleaner(cleaning)
        # The file's own settings may differ from the model's; the card decides.
        self._tokenizer.enable_truncation(max_length=context_length)
        pad_token = self._tokenizer.id_to_token(pad_id) or "[PAD]"
        self._tokenizer.enable_padding(length=context_length, pad_id=pad_id, pad_token=pad_token)

    @classmethod
    def of_folder(cls, folder: ModelFolder) -> Tokenizer:
        """The tokenizer of a model folder; its file is compared with the card first."""
        card = folder.card
        file = folder.verified("tokenizer.json")
        cleaning = card.get("text_cleaning")
        return cls(file, int(card["context_length"]), int(card.get("pad_id") or 0), cleaning)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts to int64 [n, context_length].

        Raises:
            DataError: a text is no valid Unicode, as one typed in another encoding; or one stands where a
                list is due.
            ModelFolderError: the special tokens alone are more than `context_length`.
        """
        if isinstance(texts, str):
            raise DataError(f'texts: a list is needed, also for one text: ["{texts}"]')
        if not texts:
            return np.zeros((0, self.context_length), np.int64)
        try:
            rows = [row.ids for row in self._tokenizer.encode_batch(self._cleaned(texts))]
        except (TypeError, UnicodeEncodeError):
            raise DataError("a text is not valid Unicode; type it in UTF-8") from None
        # Where not even the special tokens fit, the package cuts nothing at all.
        if max(map(len, rows)) > self.context_length:
            raise ModelFolderError(
                f"context_length {self.context_length} leaves no room for the tokenizer's special tokens"
            )
        return np.array(rows, np.int64)

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        if self._clean is None:
            return list(texts)
        for text in texts:
            text.encode()  # which raises where cleaning would put a mark in place of what cannot be read
        return [self._clean(text) for text in texts]
