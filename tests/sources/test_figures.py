from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.curate.image_files import PictureFiles, Place
from pathclip.errors import ConfigError
from pathclip.sources import figures, figures_jats, read_posts
from pathclip.types import Malformed, Notice, Post
from tests.sources.spoiled import check_post

ARTICLE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Archiving DTD v1.3//EN" "JATS-archivearticle1-3.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"
         xmlns:ali="http://www.niso.org/schemas/ali/1.0/" xml:lang="en" article-type="case-report">
<front><article-meta>
  <article-id pub-id-type="pmid">77</article-id><article-id pub-id-type="pmc">123456</article-id>
  <pub-date pub-type="collection"><year>2022</year></pub-date>
  <pub-date pub-type="epub"><day>7</day><month>3</month><year>2021</year></pub-date>
  <permissions><copyright-statement>(c) the authors</copyright-statement>
    <license license-type="open-access"><ali:license_ref>https://creativecommons.org/licenses/by/4.0/</ali:license_ref>
    <license-p>Free for all, see <ext-link xlink:href="https://other.example.org">there</ext-link>.</license-p></license>
  </permissions>
</article-meta></front>
<body><p>Text with <xref rid="F1">Figure 1</xref>.</p>
  <fig id="F1"><label>Figure 1</label>
    <caption><title>Lipoma of the back.</title>
      <p>Mature <italic>fat</italic> (H&amp;E, &times;40; scale 5&#160;&mu;m)
      (<xref rid="F2" ref-type="fig">Fig. 2</xref>)<xref ref-type="bibr"><sup>3</sup></xref>.
      <inline-formula><tex-math>\\alpha</tex-math><mml:math><mml:mi>a</mml:mi></mml:math></inline-formula></p>
      <p>Arrow: <bold>lipoblast</bold>.</p></caption>
    <alt-text>Fat cells</alt-text>
    <graphic xlink:href="case-g001"/>
    <graphic xlink:href="case-g002"><alt-text>More of them</alt-text></graphic>
  </fig>
  <fig-group><caption><p>Shared words.</p></caption>
    <fig id="F2"><graphic xlink:href="case-g003.png"/></fig>
    <fig id="F3"><caption><p>Own words.</p></caption>
      <permissions><license xlink:href="https://example.org/reprinted"/></permissions>
      <alternatives><graphic xlink:href="case-g004"/><graphic xlink:href="case-g004-large"/></alternatives>
    </fig>
  </fig-group>
  <fig id="F4"><caption><p>No picture.</p></caption></fig>
</body></article>"""


def write(folder: Path, content: str | bytes, name: str = "case.nxml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **options) -> list[Post | Malformed | Notice]:
    return list(figures.read(path, **options))


def posts(path: Path, **options) -> dict[str, Post]:
    return {item.id: item for item in read(path, **options) if isinstance(item, Post)}


def test_an_article_gives_a_post_per_figure_with_all_its_fields(tmp_path):
    found = posts(write(tmp_path, ARTICLE))
    assert list(found) == ["PMC123456_F1", "PMC123456_F2", "PMC123456_F3"]
    first = found["PMC123456_F1"]
    assert first.text == (
        "Lipoma of the back.\n\nMature fat (H&E, ×40; scale 5 μm) (Fig. 2). a\n\nArrow: lipoblast."
    )
    assert (first.platform, first.case, first.language) == ("figures", "PMC123456", "en")
    assert first.created_at == datetime(2021, 3, 7, tzinfo=UTC)
    assert first.licence == "https://creativecommons.org/licenses/by/4.0/"
    assert [(media.key, media.alt_text) for media in first.media] == [
        ("PMC123456_case-g001", "Fat cells"),
        ("PMC123456_case-g002", "More of them"),
    ]


def test_a_figure_without_words_has_those_of_its_group_and_its_own_licence_counts(tmp_path):
    found = posts(write(tmp_path, ARTICLE))
    assert [found[f"PMC123456_F{n}"].text for n in (2, 3)] == ["Shared words.", "Own words."]
    assert found["PMC123456_F3"].licence == "https://example.org/reprinted"


def test_of_one_picture_in_several_formats_the_first_stands_for_all(tmp_path):
    assert [media.path for media in posts(write(tmp_path, ARTICLE))["PMC123456_F3"].media] == ["case-g004"]


def test_a_figure_that_names_no_picture_is_malformed_at_its_line(tmp_path):
    (bad,) = [item for item in read(write(tmp_path, ARTICLE)) if isinstance(item, Malformed)]
    line = 1 + ARTICLE[: ARTICLE.index('<fig id="F4">')].count("\n")
    assert (bad.line, bad.reason) == (line, "figure 4 names no picture")


def test_pictures_are_found_below_the_folder_of_images_whatever_their_suffix(tmp_path):
    path = write(tmp_path / "PMC123456", ARTICLE)
    for name in ("case-g001.gif", "case-g001.jpg", "case-g002.TIF", "case-g003.png"):
        (path.parent / name).write_bytes(b"x")
    found = posts(path, root=tmp_path)
    media = [*found["PMC123456_F1"].media, *found["PMC123456_F2"].media]
    assert [one.path for one in media] == [
        f"PMC123456/{name}" for name in ("case-g001.jpg", "case-g002.TIF", "case-g003.png")
    ]
    assert all(PictureFiles(tmp_path).find(one) for one in media)
    assert posts(path)["PMC123456_F1"].media[0].path == "case-g001.jpg"


@pytest.mark.parametrize("href", ["../../etc/passwd", "/etc/passwd", "..", "a/../../b", ".hidden"])
def test_a_picture_named_outside_of_the_folder_is_not_reached(tmp_path, href):
    path = write(tmp_path / "a", ARTICLE.replace("case-g003.png", href))
    for media in [media for post in posts(path, root=tmp_path).values() for media in post.media]:
        assert ".." not in Path(media.path).parts and not Path(media.path).is_absolute()


@pytest.mark.parametrize("name", ["../secret", ".secret", "a\0", "x" * 5000, "\ud800"])
def test_no_picture_is_looked_for_elsewhere_or_under_an_impossible_name(tmp_path, name):
    for secret in (tmp_path / "secret.jpg", tmp_path / "in" / ".secret.jpg"):
        secret.parent.mkdir(exist_ok=True)
        secret.write_bytes(b"x")
    assert figures.find_picture(tmp_path / "in", name) is None


def test_articles_of_a_set_are_all_read(tmp_path):
    one = ARTICLE.partition('.dtd">')[2]
    both = f"<pmc-articleset>{one}{one.replace('123456', '99')}</pmc-articleset>"
    both = both.replace("&times;", "x").replace("&mu;", "u")  # without a DTD there are no names of signs
    assert {post.case for post in posts(write(tmp_path, both, "set.xml")).values()} == {"PMC123456", "PMC99"}


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><article>&x;</article>', "declares entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><article>&x;</article>', "declares entities"),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "http://x.example/">%x;]><article/>', "declares entities"),
        ("<article>" + "<p>" * 300 + "</p>" * 300 + "</article>", "nest deeper"),
        ("<article><p></article>", "not XML: mismatched tag in line 1"),
        ("", "not XML: no element found"),
        ('<?xml version="1.0" encoding="nonsense"?><article/>', "not XML"),
        ("<article>\ud800</article>", "not XML"),
    ],
)
def test_hostile_and_broken_xml_is_malformed(tmp_path, xml, reason):
    (item,) = read(write(tmp_path, xml.encode("utf-8", "surrogatepass")))
    assert isinstance(item, Malformed) and reason in item.reason


def test_a_document_larger_than_the_bound_is_malformed(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_jats, "MAX_XML_BYTES", 1000)
    (item,) = read(write(tmp_path, ARTICLE))
    assert isinstance(item, Malformed) and "larger than" in item.reason


def test_xml_of_another_kind_and_an_article_without_figures_are_told(tmp_path):
    assert [item.kind for item in read(write(tmp_path, "<html/>"))] == ["document"]
    assert [item.kind for item in read(write(tmp_path, "<article/>"))] == ["article"]


def test_a_text_beside_a_picture_is_its_caption(tmp_path):
    path = write(tmp_path / "skin", "\ufeffA lipoma.\n", "case 1.txt")
    (tmp_path / "skin" / "case 1.jpg").write_bytes(b"x")
    (post,) = read(path, root=tmp_path, licence="CC0")
    assert (post.id, post.text, post.licence) == ("skin/case 1", "A lipoma.", "CC0")
    assert PictureFiles(tmp_path).find(post.media[0]) == Place(str(tmp_path / "skin" / "case 1.jpg"))


def test_a_text_without_picture_is_told_and_one_that_is_no_text_is_malformed(tmp_path):
    assert [item.kind for item in read(write(tmp_path, "CC BY", "license.txt"))] == ["text"]
    (tmp_path / "a.png").write_bytes(b"x")
    (item,) = read(write(tmp_path, b"\xff\xfe\x00", "a.txt"))
    assert isinstance(item, Malformed) and item.reason == "not UTF-8"


def test_a_folder_is_read_by_name_and_a_wrong_option_told_at_once(tmp_path):
    write(tmp_path, ARTICLE)
    (tmp_path / "a.jpg").write_bytes(b"x")
    write(tmp_path, "A naevus.", "a.txt")
    found = [item.id for item in read_posts("figures", tmp_path, name="mine") if isinstance(item, Post)]
    assert found == ["a", "PMC123456_F1", "PMC123456_F2", "PMC123456_F3"]
    with pytest.raises(ConfigError, match=r"source\.licence"):
        figures.read(tmp_path / "a.txt", licence=4)


@given(data=st.data())
def test_no_bytes_of_an_article_crash_the_reader(tmp_path_factory, data):
    content = bytearray(ARTICLE.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 40))
        content[place : place + cut] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"<fig>", b"</fig>", b"&x;"])
        )
    items = read(write(tmp_path_factory.mktemp("fuzz"), bytes(content)))
    assert items
    for item in items:
        if isinstance(item, Post):
            check_post(item)
