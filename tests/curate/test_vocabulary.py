import time

import pytest

from pathclip.curate.vocabulary import DiseaseTerms, read_disease_terms, read_hashtags
from pathclip.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def diseases() -> DiseaseTerms:
    return read_disease_terms()


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("Looks like a schwannoma", "schwannoma"),
        ("Adenocarcinoma!", "adenocarcinoma"),
        ("I'd go with Crohn’s", "crohn"),
        ("classic Rosai-Dorfman", "rosai dorfman"),
        ("Paget's disease of the nipple", "paget"),
        ("favor a solitary fibrous tumour", "solitary fibrous tumour"),
        ("two fundic gland polyps", "fundic gland polyps"),
        ("small biopsies of nevi", "nevi"),
        ("dlbcl", "dlbcl"),
        ("DCIS I think", "dcis"),
        ("GIST", "GIST"),
        ("a NET of the ileum", "NET"),
        ("B-ALL", "b all"),
        ("hepatomegaly", "hepatomegaly"),
        ("plantar verrucae or verruca", "verruca"),
        ("sialolithiasis", "sialolithiasis"),
        ("syphilis until proven otherwise", "syphilis"),
        ("dysplasia", "dysplasia"),
        ("cirrhotic", "cirrhotic"),
        ("Carcinome épidermoïde", "carcinome"),
    ],
)
def test_a_disease_is_found_by_name_ending_or_abbreviation(diseases, text, term):
    assert diseases.find(text) == term


@pytest.mark.parametrize(
    "text",
    [
        "Thanks, great case!",
        "Great case, thank you for sharing",
        "I agree with you all",
        "the gist of it is clear",
        "net result, men and a pin in a map",
        "ALL GOOD, THE GIST IS CLEAR TO ALL MEN",
        "Nice stroma and mitosis",
        "the diagnosis is as the prognosis",
        "an academic homeostasis",
        "What a diploma, what a trophy",
        "fantastic picture",
        "Beautiful images 👏",
        "",
    ],
)
def test_thanks_and_chat_name_no_disease(diseases, text):
    assert diseases.find(text) is None


def test_unspecific_findings_count_unless_a_specific_one_is_asked_for(diseases):
    assert diseases.find("a lesion of the skin") == "lesion"
    assert diseases.find_specific("some lesions of the skin") is None
    assert diseases.find_specific("a lesion, perhaps a lipoma") == "lipoma"


def test_the_vocabulary_is_large_and_holds_nothing_twice(diseases):
    import yaml

    from pathclip.config import data_dir

    chapters = yaml.safe_load((data_dir() / "disease_terms.yaml").read_text(encoding="utf-8"))["terms"]
    terms = [str(term) for part in chapters.values() for term in part]
    assert len(terms) > 1000
    assert len(terms) == len(set(terms))


def test_searching_a_long_text_takes_time_in_proportion(diseases):
    def seconds(text):
        start = time.process_time()
        assert diseases.find(text) is None
        return time.process_time() - start

    assert seconds("word solitary fibrous " * 20_000) < 2


def test_a_list_of_terms_without_chapters_is_a_vocabulary(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("endings: [oma]\nnot_diseases: [aroma]\nterms: [wart, basal cell]\nleast_letters: 6\n")
    mine = read_disease_terms(str(file))
    assert [mine.find(text) for text in ("warts", "basal cells", "lipoma", "aroma", "ooma")] == [
        "warts",
        "basal cells",
        "lipoma",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("terms: []", "'endings' is needed"),
        ("endings: []\nnot_diseases: []\nterms: 3", "chapters that are lists"),
    ],
)
def test_a_malformed_vocabulary_is_told(tmp_path, content, message):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_disease_terms(str(file))


def test_the_hashtags_of_the_paper_are_32_and_the_wider_list_adds_to_them():
    assert len(read_hashtags(["openpath"])) == 32
    assert "pathtwitter" in read_hashtags(["wider"])
    assert not read_hashtags(["openpath"]) & read_hashtags(["wider"])
    with pytest.raises(ConfigError, match="Did you mean wider"):
        read_hashtags(["widest"])
