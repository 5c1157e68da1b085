from collections import Counter

import pytest
import torch

from pathclip.config import build
from pathclip.errors import ConfigError, DataError
from pathclip.shards.captions import Captions

TARGET = "pathclip.shards.captions.Captions"
N = 400


def drawn(captions, text="a gland", meta=None, n=N, seed=0, **place):
    generator = torch.Generator().manual_seed(seed)
    return captions([text] * n, [meta or {}] * n, generator, **place)


def test_the_defaults_leave_every_text_as_it_is():
    meta = {"organ": "colon", "paraphrases": ["other"]}
    assert {*drawn(Captions(), "100 % {text} {organ}", meta)} == {"100 % {text} {organ}"}


def test_every_template_is_drawn():
    counts = Counter(drawn(Captions(["{text}", "H&E: {text}", "{text}, microscopy"])))
    assert {*counts} == {"a gland", "H&E: a gland", "a gland, microscopy"}
    assert min(counts.values()) > N / 5


def test_the_text_and_its_paraphrases_are_equally_likely():
    meta = {"rewordings": ["one", "two", "three"]}
    counts = Counter(drawn(Captions(paraphrases="rewordings"), meta=meta))
    assert {*counts} == {"a gland", "one", "two", "three"} and min(counts.values()) > N / 7


@pytest.mark.parametrize("meta", [{}, {"rewordings": None}, {"rewordings": []}, {"paraphrases": ["x"]}])
def test_a_pair_without_paraphrases_keeps_its_text(meta):
    assert {*drawn(Captions(paraphrases="rewordings"), meta=meta)} == {"a gland"}


@pytest.mark.parametrize("wrong", ["one", [1], ["one", " "], {"a": "b"}])
def test_paraphrases_that_are_no_list_of_texts_are_one_line(wrong):
    with pytest.raises(
        DataError, match=r"pair 'p1': 'rewordings'.*a list of texts.*data\.captions\.paraphrases"
    ):
        drawn(Captions(paraphrases="rewordings"), meta={"id": "p1", "rewordings": wrong})


def test_the_organ_is_named_as_often_as_its_probability_says():
    captions = Captions(organ="{organ}: {text}", organ_probability=0.25)
    counts = Counter(drawn(captions, meta={"organ": "colon"}))
    assert {*counts} == {"a gland", "colon: a gland"} and 0.15 < counts["colon: a gland"] / N < 0.35
    assert {*drawn(captions, meta={"organ": None})} == {*drawn(captions)} == {"a gland"}


def test_the_organ_may_stand_under_another_key():
    captions = Captions(organ="{text} ({organ})", organ_probability=1, organ_key="site")
    assert {*drawn(captions, meta={"organ": "x", "site": " skin "})} == {"a gland (skin)"}


def test_paraphrase_organ_and_template_follow_each_other():
    captions = Captions(["pathology, {text}"], "rewordings", "{organ}: {text}", 1)
    meta = {"organ": "colon", "rewordings": ["b"]}
    assert {*drawn(captions, "a", meta)} == {"pathology, colon: a", "pathology, colon: b"}


def test_braces_in_a_text_stay_what_they_are():
    captions = Captions(["<{text}>"], organ="{organ}: {text}", organ_probability=1)
    assert {*drawn(captions, "see {text} of {organ}", {"organ": "{text}"})} == {
        "<{text}: see {text} of {organ}>"
    }


def test_two_processes_put_texts_as_one_does():
    captions = Captions(["{text}", "H&E: {text}"], "rewordings", "{organ}: {text}")
    meta = {"organ": "colon", "rewordings": ["b", "c"]}
    alone = drawn(captions, "a", meta, n=16)
    first = drawn(captions, "a", meta, n=8, offset=0, total=16)
    second = drawn(captions, "a", meta, n=8, offset=8, total=16)
    assert first + second == alone and len({*alone}) > 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ["an image"]}, r"data\.captions: templates: 'an image' has no place for \{text\}"),
        ({"templates": []}, "templates is empty"),
        ({"organ": "{text}"}, r"organ: .* no place for \{organ\}"),
        ({"organ": "{organ}"}, r"organ: .* no place for \{text\}"),
        ({"organ_probability": 1.5}, r"organ_probability is 1\.5"),
        ({"templates": "{text}"}, r"data\.captions\.templates: expected"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(options, message):
    with pytest.raises(ConfigError, match=message):
        build({"_target_": TARGET, **options}, "data.captions")
