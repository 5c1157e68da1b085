from dataclasses import replace

import pytest

from pathclip.curate.language import LanguageDetector, beyond_latin, read_function_words
from pathclip.curate.rules import RuleSettings, Seen, language
from pathclip.curate.text import TextCleaner
from pathclip.errors import DataError
from pathclip.types import Post

OTHERS = [
    "es",
    "pt",
    "fr",
    "de",
    "it",
    "nl",
    "tr",
    "pl",
    "ru",
    "ar",
    "fa",
    "ja",
    "zh",
    "ko",
    "hi",
    "id",
    "sv",
]


@pytest.fixture(scope="module")
def english() -> RuleSettings:
    return RuleSettings(languages=["en"], other_languages=OTHERS)


def dropped(text: str, settings: RuleSettings, platform: str | None = None) -> str | None:
    return language(Seen(Post("1", "twitter", text, language=platform), TextCleaner()), settings)


ENGLISH = (
    "Poorly differentiated adenocarcinoma with signet ring cells",
    "Granulomatous inflammation, Langhans giant cells",
    "Invasive ductal carcinoma, grade 3, ER positive",
    "Lichen planus pilaris scalp biopsy H&E",
    "Verocay bodies, Antoni A and B, schwannoma",
    "Actinomyces israelii colonies tonsil",
    "Molluscum contagiosum, Henderson-Patterson bodies",
    "Mycosis fungoides with Pautrier microabscesses",
    "Corpora amylacea prostate",
    "Endometriosis in a caesarean scar",
    "Adenoma carcinoma sequence colon",
    "Pleomorphic xanthoastrocytoma BRAF V600E",
    "Necrobiosis lipoidica",
    "Struma ovarii ovary",
    "Cervical intraepithelial neoplasia grade III",
    "Sarcoma alveolar rhabdomyosarcoma desmin myogenin",
    "Strongyloides larvae in duodenum",
    "Nice case of Kikuchi disease",
    "Carcinoma in situ, bladder",
    "Melanoma, vertical growth phase, Breslow 2.3 mm",
    "Amyloid, Congo red, apple-green birefringence",
    "Osteosarcoma femur, lace-like osteoid",
    "Chronic lymphocytic leukemia bone marrow",
    "Condyloma acuminatum vulva",
    "Glioblastoma with pseudopalisading necrosis",
    "Looks like a schwannoma",
    "Classic sarcoid",
    "Pilomatricoma",
    "Echinococcus granulosus liver hydatid cyst",
    "Trichuris trichiura in the caecum",
)
FOREIGN = (
    "Carcinoma ductal infiltrante de mama con invasión linfovascular",
    "Adenocarcinoma de colon moderadamente diferenciado",
    "Biopsia de piel con infiltrado liquenoide en banda",
    "Ganglio linfático con granulomas no necrotizantes",
    "Melanoma nodular en paciente de 56 años",
    "Tumor del estroma gastrointestinal de estómago",
    "Citología de tiroides: carcinoma papilar",
    "Mujer de 30 años con masa ovárica, teratoma maduro",
    "Carcinoma de células escamosas da pele bem diferenciado",
    "Biópsia gástrica com metaplasia intestinal e Helicobacter",
    "Linfonodo com metástase de melanoma",
    "Adenoma pleomórfico da glândula parótida",
    "Mulher de 40 anos com nódulo na mama",
    "Carcinome épidermoïde bien différencié de la langue",
    "Adénocarcinome colique avec embols vasculaires",
    "Biopsie rénale montrant des dépôts d'IgA",
    "Lymphome de la zone marginale gastrique",
    "Homme de 50 ans, nodule pulmonaire droit",
    "Plattenepithelkarzinom der Lunge mit Verhornung",
    "Lymphknoten mit Metastase eines malignen Melanoms",
    "Hautbiopsie mit bandförmigem Infiltrat",
    "Chronische Gastritis mit Nachweis von Helicobacter pylori",
    "Mäßig differenziertes Adenokarzinom des Kolons",
    "Carcinoma duttale infiltrante della mammella",
    "Biopsia gastrica con metaplasia intestinale",
    "Linfonodo con metastasi di melanoma",
    "Adenocarcinoma del colon moderatamente differenziato",
    "Mide biyopsisinde taşlı yüzük hücreli karsinom",
    "Deri biyopsisi, liken planus ile uyumlu",
    "Tiroid papiller karsinom, çekirdek olukları",
    "Plaveiselcelcarcinoom van de huid met verhoorning",
    "Maagbiopt met intestinale metaplasie",
    "Rak płaskonabłonkowy skóry z rogowaceniem",
    "Аденокарцинома толстой кишки, умеренно дифференцированная",
    "سرطان غدي في القولون",
    "کارسینوم سلول سنگفرشی پوست",
    "胃生検の印環細胞癌",
    "胃活检印戒细胞癌",
    "위 생검에서 반지세포암",
    "त्वचा की बायोप्सी में कैंसर",
    "Karsinoma sel skuamosa pada kulit dengan keratinisasi",
    "Skivepitelcancer i huden med keratinisering",
)


@pytest.mark.parametrize("text", ENGLISH)
def test_english_captions_stay_however_much_latin_they_hold(english, text):
    assert dropped(text, english) is None


@pytest.mark.parametrize("text", FOREIGN)
def test_captions_in_other_languages_fall(english, text):
    assert dropped(text, english)


def test_the_kept_languages_are_a_matter_of_the_config(english):
    german = RuleSettings(languages=["de"], other_languages=["en", "es", "fr"])
    assert dropped("Hautbiopsie mit einem dichten Infiltrat", german) is None
    assert dropped("Skin biopsy with a dense infiltrate of the dermis", german)
    assert dropped("Skin biopsy with a dense infiltrate", RuleSettings()) is None


def test_every_threshold_has_an_effect():
    def settings(**fields):
        return RuleSettings(languages=["en"], other_languages=OTHERS, **fields)

    spanish = "Biopsia de piel con infiltrado"
    assert dropped(spanish, settings())
    assert dropped(spanish, settings(language_min_words=9)) is None
    assert dropped(spanish, settings(language_certainty=1.0, language_evidence=9)) is None
    assert "small words" in dropped("Hautbiopsie mit einem und ohne", settings(language_evidence=1))
    assert "small words" not in dropped("Hautbiopsie mit einem und ohne", settings(language_evidence=9))


def test_the_platform_is_believed_only_where_nothing_contradicts(english):
    latin = "Granuloma annulare, necrobiosis lipoidica, sarcoidosis cutis"
    strict = RuleSettings(languages=["en"], other_languages=OTHERS, language_certainty=0.0)
    assert dropped(latin, strict, "en") is None
    assert dropped(latin, strict, "es")
    assert dropped(latin, replace(strict, platform_language=False), "en")
    assert dropped("Hautbiopsie mit einem dichten Infiltrat und Nekrosen", english, "en")
    assert dropped("Аденокарцинома толстой кишки", english, "en")


def test_probabilities_come_most_probable_first_and_sum_to_one():
    shares = LanguageDetector(("en", "de", "es"))("Plattenepithelkarzinom der Lunge mit Verhornung")
    assert next(iter(shares)) == "de"
    assert sum(shares.values()) == pytest.approx(1)
    assert LanguageDetector(("en", "de")).best("Plattenepithelkarzinom der Lunge")[0] == "de"


def test_a_small_word_of_two_languages_counts_for_both(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("en: [the, a]\nes: [el, a]\n")
    assert read_function_words(str(file)).count({"a", "the"}) == {"en": 2, "es": 1}
    file.write_text("en: the\n")
    with pytest.raises(DataError, match="'en' needs a list"):
        read_function_words(str(file))


def test_a_greek_letter_is_no_greek_text():
    assert not beyond_latin("β-catenin positive nuclei")
    assert beyond_latin("Αδενοκαρκίνωμα")
