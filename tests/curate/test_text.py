import pytest

from pathclip.curate.text import LanguageDetector, TextCleaner, count_words


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("Case by @DrPath: lipoma https://t.co/a?b=1", "Case by : lipoma"),
        ("5 &lt; 10 mitoses, H&amp;E", "5 < 10 mitoses, H&E"),
        ("line\none\r\n\ttwo", "line one two"),
        ("zero\u200bwidth \x00 \u202eturned", "zerowidth turned"),
        ("Sarcoid 🔬👩‍⚕️❤️ granuloma", "Sarcoid granuloma"),
        ("An #adenocarcinoma of lung #PulmPath #pathology", "An adenocarcinoma of lung"),
        ("#PulmPath #pathology 🙏", ""),
        ("<p>Bold <b>case</b></p>", "Bold case"),
        ("size <5 mm and >2 mm", "size <5 mm and >2 mm"),
        ("cafÃ© au lait", "café au lait"),
        ("", ""),
    ],
)
def test_a_caption_holds_only_what_describes_the_picture(text, caption):
    assert TextCleaner()(text).replace(" :", ":") == caption.replace(" :", ":")


@pytest.mark.parametrize(
    ("hashtags", "caption"),
    [
        ("words", "A lipoma here dermpath"),
        ("drop", "A here"),
        ("drop_trailing", "A lipoma here"),
        ("keep", "A #lipoma here #dermpath"),
    ],
)
def test_hashtags_are_treated_as_the_config_says(hashtags, caption):
    assert TextCleaner(hashtags=hashtags)("A #lipoma here #dermpath") == caption


def test_emoji_stay_on_request():
    assert TextCleaner(emoji=True)("granuloma 🔬") == "granuloma 🔬"


def test_a_long_caption_is_cut_between_words():
    assert TextCleaner(max_chars=12)("signet ring cells") == "signet ring"


def test_cleaning_a_clean_caption_changes_nothing():
    clean = TextCleaner()
    once = clean("Signet-ring cells &amp; mucin 🔬 @a #b https://t.co/x #GIpath")
    assert clean(once) == once


def test_words_are_counted_in_scripts_without_spaces():
    assert count_words("signet-ring cells, 3 mm") == 3
    assert count_words("胃生検の印環細胞癌") >= 3
    assert count_words("123 !!") == 0


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Plattenepithelkarzinom der Lunge mit Verhornung", "de"),
        ("Carcinoma ductal infiltrante de mama con invasión linfovascular", "es"),
        ("Poorly differentiated carcinoma with signet ring cells", "en"),
    ],
)
def test_languages_are_told_apart(text, language):
    assert next(iter(LanguageDetector(("en", "de", "es", "it"))(text))) == language
