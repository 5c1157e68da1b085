from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from pathclip.errors import ConfigError, DataError
from pathclip.evaluate import datasets
from pathclip.evaluate.image_text import retrieval, retrieval_figures, retrieval_sections
from pathclip.evaluate.image_text.retrieval_figures import Search
from pathclip.evaluate.image_text.retrieval_task import DIRECTIONS, Retrieval
from pathclip.evaluate.subjects import Subject
from pathclip.evaluate.task import Settings
from pathclip.train.training_pictures import from_hashes
from tests import tiny_shards
from tests.evaluate.encoders import BrokenEncoder, ColourEncoder, ConstantEncoder

SETTINGS = Settings(resamples=200, code_version="test")
GOOD = Subject("model", ColourEncoder(noise=0.3), "abc")
COLLAPSED = Subject("untrained", ConstantEncoder(), "def")
DEFINITIONS = ("exact_pair", "same_text_or_group")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiny_shards.write(folder, n=24)
    return datasets.shards(str(folder))


@pytest.fixture(scope="module")
def result(pairs):
    task = Retrieval(pairs, ks=(1, 5), pools=(12, 1000), variants=["plain"])
    return task.run("pairs", [GOOD, COLLAPSED], SETTINGS)


def find(result, name, **where):
    found = [
        one
        for one in result.scores
        if one.name == name and all(one.context.get(key) == value for key, value in where.items())
    ]
    assert len(found) == 1, found
    return found[0]


def section(result, title):
    return next(one for one in result.sections if one.title.endswith(title))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("method", ["retrieval", "chance"])
def test_every_figure_stands_for_the_full_set_and_for_pools(direction, definition, method, result):
    for figure in ("recall@1", "recall@5", "mean_average_precision", "median_rank"):
        where = {"definition": definition, "method": method, "direction": direction}
        if method == "retrieval":
            where["role"] = "model"
        full = find(result, f"{direction}_{figure}", **where)
        pool = find(result, f"{direction}_{figure}_in_pools_of_12", **where)
        assert full.context["pool"] == 24 and "shuffles" not in full.context
        assert pool.context["pool"] == 12 and pool.context["shuffles"] == 100
        assert full.low <= full.value <= full.high and pool.low <= pool.value <= pool.high
        if definition == "exact_pair":  # one of 12 is easier to find than one of 24
            assert pool.value < full.value if figure == "median_rank" else pool.value > full.value


def test_no_two_scores_of_one_encoder_have_the_same_name(result):
    keys = [
        (one.name, one.context["definition"], one.context["method"], str(one.context.get("by")))
        for one in result.scores
    ]
    assert len(keys) == len(set(keys))


def test_a_collapsed_model_scores_what_chance_does(result):
    for name in ("text_to_image_recall@5", "text_to_image_recall@5_in_pools_of_12"):
        where = {"definition": "exact_pair"}
        chance = find(result, name, method="chance", **where).value
        assert find(result, name, role="untrained", **where).value == pytest.approx(chance)


def test_differences_are_paired_and_cover_mean_average_precision(result):
    for figure in ("recall@5", "mean_average_precision"):
        name, where = f"image_to_text_{figure}", {"definition": "same_text_or_group"}
        values = [find(result, name, role=role, **where).value for role in ("model", "untrained")]
        difference = find(result, f"{name}_difference", **where)
        assert difference.value == pytest.approx(values[0] - values[1]) and difference.low > 0


def test_recall_is_the_share_of_answers_with_such_a_rank(result):
    for answers in result.answers:
        about = answers.about
        score = find(
            result,
            f"{about['direction']}_recall@5",
            definition=about["definition"],
            role=about["role"],
            method="retrieval",
        )
        assert (answers.rank <= 5).mean() == pytest.approx(score.value)


def test_every_query_is_named_by_picture_direction_and_definition(result, pairs):
    assert len(result.answers) == 2 * 2 * 2
    pictures = [hashlib.sha256(content).hexdigest() for content in pairs.contents(range(24))]
    for one in result.answers:
        suffix = f"{one.about['direction']} {one.about['definition']}"
        assert one.items == tuple(f"{picture} {suffix}" for picture in pictures)
        assert one.groups == pairs.groups and one.about["variant"] == "plain" and one.truth is None
    named = [item for one in result.answers if one.about["role"] == "model" for item in one.items]
    assert len(named) == len(set(named))


def test_a_picture_with_two_texts_gives_two_items(pairs):
    contents = list(pairs.contents(range(11)))
    twice = replace(
        pairs,
        paths=pairs.paths[:1] + pairs.paths[:11],
        texts=("another text", *pairs.texts[:11]),
        groups=pairs.groups[:1] + pairs.groups[:11],
        contents=lambda numbers: iter([contents[max(0, number - 1)] for number in numbers]),
    )
    result = Retrieval(twice, variants=["plain"]).run("pairs", [GOOD], SETTINGS)
    assert all(len(set(one.items)) == 12 for one in result.answers)


def test_each_direction_has_the_ranks_of_its_own_queries(pairs):
    result = Retrieval(pairs, variants=["plain"]).run("pairs", [GOOD], SETTINGS)
    images = GOOD.encoder.encode_images(
        [GOOD.encoder.preprocess.open(one) for one in pairs.contents(range(24))]
    )
    texts = GOOD.encoder.encode_texts(pairs.texts)
    relevant = retrieval.relevance("exact_pair", pairs.texts, np.arange(24))
    expected = {
        "text_to_image": retrieval.ranks(texts, images, relevant).tolist(),
        "image_to_text": retrieval.ranks(images, texts, relevant).tolist(),
    }
    assert expected["text_to_image"] != expected["image_to_text"]
    own = [one for one in result.answers if one.about["definition"] == "exact_pair"]
    assert {one.about["direction"]: one.rank.tolist() for one in own} == expected


def test_a_k_beyond_a_pool_is_left_out_there(pairs):
    task = Retrieval(pairs, ks=(1, 20), pools=(12,), variants=["plain"])
    names = {one.name for one in task.run("pairs", [GOOD], SETTINGS).scores}
    assert "text_to_image_recall@20" in names and "text_to_image_recall@1_in_pools_of_12" in names
    assert "text_to_image_recall@20_in_pools_of_12" not in names


def test_what_few_pairs_leave_out_is_said(pairs):
    task = Retrieval(pairs, ks=(1, 50), pools=(100, 1000), variants=["plain"])
    result = task.run("pairs", [GOOD], SETTINGS)
    assert "Left out, because there are only 24 pairs: recall@50." in result.remarks
    assert "No random pools of 100 and 1,000: the full set has 24 pairs." in result.remarks
    assert not any("recall@50" in one.name or "pools" in one.name for one in result.scores)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ks": [0]}, "tasks.pairs.ks: 0 is no whole number of at least 1"),
        ({"ks": [2.5]}, "tasks.pairs.ks: 2.5 is no whole number"),
        ({"pools": [1]}, "tasks.pairs.pools: 1 is no whole number of at least 2"),
        ({"definitions": ["exact"]}, "tasks.pairs.definitions: 'exact' is none of"),
        ({"definitions": []}, "tasks.pairs.definitions: '' is none of"),
    ],
)
def test_a_wrong_value_names_its_key(wrong, message, pairs):
    with pytest.raises(ConfigError, match=message):
        Retrieval(pairs, **wrong).run("pairs", [GOOD], SETTINGS)


def test_a_pair_without_text_is_named(pairs):
    empty = replace(pairs, texts=(*pairs.texts[:3], " ", *pairs.texts[4:]))
    with pytest.raises(DataError, match=r"task pairs: .*s0003 has an empty text"):
        Retrieval(empty).run("pairs", [GOOD], SETTINGS)


def test_pictures_whose_embedding_is_not_a_number_are_named(pairs):
    with pytest.raises(DataError, match="s0000: its embedding by broken"):
        Retrieval(pairs).run("pairs", [Subject("model", BrokenEncoder())], SETTINGS)


def test_scores_of_pictures_that_were_trained_on_are_marked(pairs):
    seen = from_hashes(hashlib.sha256(one).hexdigest() for one in pairs.contents(range(5)))
    task = Retrieval(pairs, variants=["plain"])
    result = task.run("pairs", [Subject("model", ColourEncoder(), "", seen)], SETTINGS)
    assert any(line.startswith("LEAK: colours was trained on 5 of these 24") for line in result.remarks)
    own = [one for one in result.scores if one.context["method"] == "retrieval"]
    assert own and all(one.context["leaked"] == 5 and one.context["marks"] == ["leak"] for one in own)
    assert not any(one.context.get("marks") for one in result.scores if one.context["method"] == "chance")


def test_without_a_model_chance_remains(pairs):
    result = Retrieval(pairs, pools=(12,), variants=["plain"]).run("pairs", [], SETTINGS)
    assert {one.context["method"] for one in result.scores} == {"chance"} and len(result.sections) == 2


def test_the_report_has_curves_with_chance_dashed_and_a_table_of_pools(result):
    curves = section(result, ": retrieval")
    assert curves.html.count("<svg") == 4 and curves.html.count("dashed") == 4
    assert "in pools of 12" not in curves.html
    pools = section(result, ": retrieval in pools")
    assert "recall@5 in pools of 12" in pools.html and "12 (100×)" in pools.caption


def test_the_hardest_queries_are_shown_worst_first_with_what_came_first(result):
    html = section(result, ": hardest queries").html
    answers = next(
        one
        for one in result.answers
        if one.about["direction"] == "text_to_image"
        and one.about["definition"] == "same_text_or_group"
        and one.about["role"] == "model"
    )
    assert f"in place {answers.rank.max()} of 24" in html
    assert html.index(f"in place {answers.rank.max()} of 24") < html.index("image to text")
    assert 'class="picture wrong"' in html and 'class="picture right"' in html


def test_hard_queries_have_each_text_once_and_a_wrong_first_place():
    rank = np.array([1, 7, 9, 3, 1, 7])
    texts = ["a", "b", "c", "c", "d", "b"]
    assert retrieval_sections._worst(rank, texts) == [2, 1]


def test_fewer_resamples_of_very_many_groups_are_stated(pairs, monkeypatch):
    monkeypatch.setattr(retrieval_figures, "_FEWEST_RESAMPLES", 7)
    monkeypatch.setattr(retrieval_figures, "_DRAWS", 0)
    result = Retrieval(pairs, variants=["plain"]).run("pairs", [], SETTINGS)
    assert {one.context["resamples"] for one in result.scores} == {7}
    assert any("intervals are of 7 resamples each" in line for line in result.remarks)


def test_the_curve_of_chance_is_worked_out_once(monkeypatch):
    counted, positives = [], retrieval.Relevance.positives
    monkeypatch.setattr(retrieval.Relevance, "positives", lambda one: counted.append(1) or positives(one))
    relevant = retrieval.Relevance("exact_pair", np.arange(30), np.arange(30))
    retrieval_sections._curves(Search("plain", "text_to_image", relevant, {}), [], (1, 20))
    assert len(counted) == 1
