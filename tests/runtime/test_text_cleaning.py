"""Texts are cleaned as open_clip cleans them, without torch."""

from __future__ import annotations

import subprocess
import sys

import open_clip.tokenizer
import pytest

from pathclip.errors import DataError, ModelFolderError
from pathclip.model.tokenizer_files import clip_tokenizer_json
from pathclip.model_folder import open_model_folder
from pathclip.runtime import text_cleaning
from pathclip.runtime.tokenizer import Tokenizer
from tests.model.captions import captions
from tests.tiny_model import CONTEXT_LENGTH, WORDS, write_tiny_model

# Every printable ASCII sign between others, all short entities without a semicolon, and white space.
ASCII = [
    *("".join(map(chr, range(32, 127))), "a\tb\nc\r\nd\x0ce", "H&E", "R&D &lt &gt &amp &copy", "&&", "&;"),
    *("fish & chips;", "a &b c;", "x" * 5000, "<b>&amp</b>", "&#39 &#x27", '"quoted" it\'s'),
]


@pytest.mark.parametrize("name", text_cleaning.CLEANINGS)
def test_texts_are_cleaned_as_open_clip_cleans_them(name):
    theirs = open_clip.tokenizer.get_clean_fn(name)
    for text in [*captions(), *ASCII]:
        assert text_cleaning.CLEANINGS[name](text) == theirs(text), text


def test_plain_ascii_is_the_same_without_ftfy_and_does_not_import_it():
    cleaned = [text_cleaning.lower(text) for text in ASCII]
    assert cleaned == [open_clip.tokenizer._clean_lower(text) for text in ASCII]
    code = (
        "import sys\nfrom pathclip.runtime.text_cleaning import CLEANINGS\n"
        f"for text in {ASCII!r}:\n    [clean(text) for clean in CLEANINGS.values()]\n"
        "print(sorted({'ftfy', 'torch', 'open_clip'} & set(sys.modules)))\n"
        "CLEANINGS['lower']('caf\\u00c3\\u00a9')\nprint('ftfy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_a_tokenizer_cleans_first_where_it_is_told_to():
    plain, cleaning = (Tokenizer(clip_tokenizer_json().encode(), 77, 0, one) for one in (None, "lower"))
    (mended,) = plain(["café & H&E"]).tolist()
    assert cleaning(["caf\u00c3\u00a9 &amp;amp; H&amp;E"]).tolist() == [mended]
    assert plain(["caf\u00c3\u00a9 &amp;amp; H&amp;E"]).tolist() != [mended]


def test_the_card_says_how_texts_are_cleaned(tmp_path):
    folder = write_tiny_model(tmp_path / "m", text_cleaning="canonicalize")
    (row,) = Tokenizer.of_folder(open_model_folder(folder))(["RED_white!"])
    assert row.tolist()[:4] == [2, WORDS.index("red"), WORDS.index("white"), WORDS.index("[END]")]
    assert len(row) == CONTEXT_LENGTH


def test_an_unknown_cleaning_is_refused(tmp_path):
    folder = write_tiny_model(tmp_path / "m", text_cleaning="shout")
    with pytest.raises(ModelFolderError, match="text_cleaning must be one of lower, whitespace"):
        Tokenizer.of_folder(open_model_folder(folder))


def test_what_is_not_unicode_is_refused_and_not_mended():
    with pytest.raises(DataError, match="not valid Unicode"):
        Tokenizer(clip_tokenizer_json().encode(), 77, 0, "lower")(["red", "caf\udce9"])
