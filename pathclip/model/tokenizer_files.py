"""CLIP's byte-pair vocabulary as a `tokenizer.json`, so that the runtime reads every model alike."""

from __future__ import annotations

from functools import lru_cache

START, END = "<start_of_text>", "<end_of_text>"
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


@lru_cache(maxsize=1)
def clip_tokenizer_json() -> str:
    """The tokenizer of OpenAI's CLIP (Radford et al. 2021) in the format of the `tokenizers` package.

    Ids equal those of `open_clip.SimpleTokenizer`: 49,408 entries, start 49406, end 49407. Text should
    be free of HTML entities and mojibake, which open_clip repairs at this point and curation earlier.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    source = SimpleTokenizer()
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(source.encoder),
            merges=list(source.bpe_ranks),
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
            unk_token=END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, source.sot_token_id), (END, source.eot_token_id)],
    )
    return tokenizer.to_str()
