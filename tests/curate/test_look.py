from pathlib import Path

import pytest
from PIL import Image

from pathclip.curate import look as module
from pathclip.curate.engine import Engine
from pathclip.curate.image_files import PictureFiles
from pathclip.curate.images import ImageSettings
from pathclip.curate.ledger import Ledger
from pathclip.curate.look import look, read_hashes, write_hashes
from pathclip.curate.select import media_key
from pathclip.types import Media

from .feed import jpeg, tissue
from .kills import COMMITS, killed_at

HERE = Engine(workers=1)


def wanted(ledger: Ledger, *media: Media) -> None:
    ledger.write(
        "insert into candidate (id, media) values (?, ?)",
        [(f"{n}_{one.key}", media_key(one)) for n, one in enumerate(media)],
    )
    ledger.database.commit()


def noted(ledger: Ledger, columns: str) -> dict[str, tuple]:
    """Key of a picture → what was noted of it, of one with several panels that of the first."""
    rows = ledger.rows(f"select media, {columns} from picture order by media, panel desc")
    return {media.split('"')[1]: tuple(rest) for media, *rest in rows}


@pytest.fixture
def files(tmp_path) -> PictureFiles:
    (tmp_path / "images").mkdir()
    for n in range(4):
        (tmp_path / "images" / f"k{n}.jpg").write_bytes(jpeg(tissue(n)))
    return PictureFiles(tmp_path / "images")


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger", "test") as opened:
        yield opened


def test_a_picture_is_looked_at_once_however_many_captions_it_has(ledger, files):
    wanted(ledger, *[Media("k1")] * 5, Media("k2"))
    look(ledger, files, ImageSettings(), HERE)
    assert list(ledger.rows("select count(*) from picture")) == [(2,)]


def test_what_keeps_a_picture_from_being_read_is_told(ledger, files):
    (files.source / "big.jpg").write_bytes(jpeg(tissue(1)) + bytes(1 << 20))
    (files.source / "broken.jpg").write_bytes(b"<html>not found</html>")
    (files.source / "small.jpg").write_bytes(jpeg(tissue(1, 50)))
    wanted(ledger, *map(Media, ("absent", "big", "broken", "small", "k1")))
    look(ledger, files, ImageSettings(max_bytes=1 << 20), HERE)
    seen = noted(ledger, "reason, detail")
    assert seen["absent"] == ("image_unreachable", "no absent.jpg in images")
    assert seen["big"] == ("image_undecodable", "1 MiB, more than images.max_bytes")
    assert seen["broken"][0] == "image_undecodable" and seen["small"] == ("image_too_small", "50 x 50")
    assert seen["k1"] == ("", "")


def test_what_was_downloaded_is_looked_at_where_it_lies_and_a_failure_is_kept(ledger, files, tmp_path):
    (tmp_path / "elsewhere.jpg").write_bytes(jpeg(tissue(9)))
    media = [Media(key, url=f"https://example.org/{key}") for key in ("a", "b", "c")]
    wanted(ledger, *media)
    ledger.write(
        "insert into fetched values (?, ?, ?, ?)",
        [
            (media[0].url, str(tmp_path / "elsewhere.jpg"), "", ""),
            (media[1].url, None, "image_opted_out", "X-Robots-Tag: noai"),
        ],
    )
    look(ledger, files, ImageSettings(), HERE)
    seen = noted(ledger, "reason, detail, width")
    assert seen["a"] == ("", "", 160)
    assert seen["b"][:2] == ("image_opted_out", "X-Robots-Tag: noai")
    assert seen["c"][:2] == ("image_unreachable", "no c.jpg in images")


def test_pictures_are_noted_with_what_later_stages_need(ledger, files):
    wanted(ledger, Media("k1"))
    look(ledger, files, ImageSettings(), HERE)
    (hashes, width, height, flags, box) = noted(ledger, "hashes, width, height, flags, box")["k1"]
    assert len(read_hashes(hashes)) == 8 and (width, height, box) == (160, 160, None)
    assert flags.startswith("[")


def test_hashes_are_written_and_read_back():
    hashes = (0, 1, 2**64 - 1, 0xABC, 5, 6, 7, 1 << 63)
    assert read_hashes(write_hashes(hashes)) == list(hashes)
    assert read_hashes(write_hashes(())) == []


def test_only_what_was_not_looked_at_yet_is_looked_at(ledger, files, monkeypatch):
    wanted(ledger, *(Media(f"k{n}") for n in range(4)))
    monkeypatch.setattr(module, "PICTURES_PER_PARTITION", 1)
    monkeypatch.setattr(module, "PICTURES_PER_COMMIT", 1)
    inspect, seen = module.inspect, []

    def stopping(content, name, settings):
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return inspect(content, name, settings)

    monkeypatch.setattr(module, "inspect", stopping)
    with pytest.raises(KeyboardInterrupt):
        look(ledger, files, ImageSettings(), HERE)
    assert seen == ["k0.jpg", "k1.jpg", "k2.jpg"]
    look(ledger, files, ImageSettings(), HERE)
    assert seen[3:] == ["k2.jpg", "k3.jpg"]
    look(ledger, files, ImageSettings(), HERE)
    assert len(seen) == 5


def figure(folder: Path) -> None:
    """Sixteen panels on white."""
    image = Image.new("RGB", (236, 236), "white")
    for n in range(16):
        image.paste(tissue(n, 50), (6 + 58 * (n % 4), 6 + 58 * (n // 4)))
    (folder / "figure.jpg").write_bytes(jpeg(image, 95))


def test_a_kill_never_leaves_some_panels_of_a_figure_without_the_others(tmp_path, files):
    """More panels than are written at a time: what is half noted would count as looked at."""
    figure(files.source)
    settings = ImageSettings(min_side=40, panels="cut", min_panel=0.01, pathology=False)
    keys = [Media(f"f{n}", path="figure.jpg") for n in range(64)]
    step, panels, calls = 2, {}, ["killed"]
    while calls[-1] == "killed":
        step += 1
        folder = tmp_path / f"ledger{step}"
        with Ledger(folder, "test") as ledger:
            wanted(ledger, *keys)
        with killed_at(step, COMMITS) as calls, Ledger(folder, "test") as ledger:
            look(ledger, files, settings, HERE)
        with Ledger(folder, "test") as ledger:
            panels = dict(ledger.rows("select media, count(*) from picture group by media"))
            assert set(panels.values()) <= {16}, step
    assert len(panels) == 64 and step > 3
