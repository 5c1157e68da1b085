from __future__ import annotations

import numpy as np
import pytest

from pathclip.errors import DataError, ModelFolderError
from pathclip.runtime.tokenizer import Tokenizer
from tests.tiny_model import CONTEXT_LENGTH, WORDS

END = WORDS.index("[END]")


@pytest.fixture
def tokenizer(tiny_model):
    return Tokenizer(tiny_model / "tokenizer.json", CONTEXT_LENGTH, pad_id=0)


def test_rows_are_padded_to_the_context_length(tokenizer):
    tokens = tokenizer(["red", "a red image"])
    assert tokens.dtype == np.int64
    red, image = WORDS.index("red"), WORDS.index("image")
    assert tokens[0].tolist() == [2, red, END] + [0] * 9
    assert tokens[1].tolist() == [2, WORDS.index("a"), red, image, END] + [0] * 7


def test_a_long_text_is_cut_before_the_end_token(tokenizer):
    (row,) = tokenizer(["red " * 100])
    assert len(row) == CONTEXT_LENGTH
    assert row[-1] == END
    assert row[-2] == WORDS.index("red")


def test_the_cards_pad_id_wins_over_the_files(tiny_model):
    assert Tokenizer(tiny_model / "tokenizer.json", 6, pad_id=3)(["red"])[0].tolist()[3:] == [3, 3, 3]


def test_no_texts_give_no_rows(tokenizer):
    assert tokenizer([]).shape == (0, CONTEXT_LENGTH)


def test_a_context_too_short_for_the_special_tokens_is_refused(tiny_model):
    with pytest.raises(ModelFolderError, match="context_length 1 leaves no room"):
        Tokenizer(tiny_model / "tokenizer.json", 1, pad_id=0)(["red", "a red image"])


def test_a_text_that_is_not_unicode_is_refused(tokenizer):
    with pytest.raises(DataError, match="not valid Unicode"):
        tokenizer(["red", "caf\udce9"])


def test_bytes_are_as_good_as_a_file(tiny_model, tokenizer):
    content = (tiny_model / "tokenizer.json").read_bytes()
    np.testing.assert_array_equal(Tokenizer(content, CONTEXT_LENGTH, 0)(["red"]), tokenizer(["red"]))


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json", 8, 0)
    with pytest.raises(ModelFolderError, match=r"gone\.json: no such file"):
        Tokenizer(tmp_path / "gone.json", 8, 0)
