import base64
import io
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pathclip.curate import report_examples
from pathclip.curate.funnel import RuleScore
from pathclip.curate.funnel_plot import LABELS, NARROW, WIDE, funnel_plot
from pathclip.curate.report import Example, read_openpath_counts, render, wilson
from pathclip.curate.rules import REASONS, RULES
from pathclip.evaluate.reporting.report import write_report

from .feed import jpeg, tissue

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


def funnel(read=1000, posts=(), pictures=1200, pairs=(), splits=None, **more):
    """A funnel in which the named rules drop what they are said to drop."""

    def part(rows, dropped):
        steps, left = [], rows
        for reason, count in dropped:
            left -= count
            steps.append({"reason": reason, "dropped": count, "left": left})
        return {"read": rows, "steps": steps, "kept": left}

    kept = part(pictures, pairs)
    return {
        "posts": part(read, posts),
        "pairs": kept,
        "splits": splits or {"train": kept["kept"], "val": 0, "test": 0},
        "split_by": "time",
        **more,
    }


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def bars(svg):
    return [float(width) for width in re.findall(r'class="node"[^>]* width="([\d.]+)"', svg)]


def bends(svg):
    return [float(wide) for wide in re.findall(r'class="loss"[^>]*?H\d+v([\d.]+)', svg)]


def section(page, title):
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def noise(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (200, 200, 3), np.uint8)
    return jpeg(Image.fromarray(pixels))


def wide(content):
    return funnel_plot(content).split("</svg>")[0]


def test_widths_in_the_plot_are_proportional_to_counts():
    content = funnel(400, [("retweet", 100)], 300, [("near_duplicate", 60)], {"train": 180, "val": 60})
    read, posts, pictures, pairs, train, val = bars(wide(content))
    assert (posts / read, pictures / read, pairs / read) == pytest.approx((0.75, 0.75, 0.6), abs=2e-3)
    assert (train / read, val / read) == pytest.approx((0.45, 0.15), abs=2e-3)
    assert [bend / read for bend in bends(wide(content))] == pytest.approx([0.25, 0.15], abs=2e-3)


def test_a_flow_of_one_in_three_million_is_still_seen():
    content = funnel(3_000_000, [("malformed", 1), ("retweet", 2_999_998)], 1, [], {"train": 1})
    assert min(bends(wide(content))) > 1
    assert min(bars(wide(content))) > 1


@pytest.mark.parametrize("read", [3, 3_000_000])
def test_the_plot_stays_within_its_frame_whatever_the_counts(read):
    content = funnel(read, [("question", read // 3)], 4 * read, [], {"train": 3 * read, "val": read})
    for svg, layout in zip(funnel_plot(content).split("</svg>"), (WIDE, NARROW), strict=False):
        assert max(bars(svg)) == pytest.approx(layout.trunk, abs=0.1)
        assert all(float(x) < layout.width for x in re.findall(r' x="([\d.]+)"', svg))


def test_a_count_has_separators_and_its_rule_stands_in_plain_words_beside_its_code():
    plot = Page(funnel_plot(funnel(3_000_000, [("retweet", 1_234_567)])))
    assert "3,000,000" in plot.text and "−1,234,567" in plot.text
    assert "repeats another's post" in plot.text and "retweet" in plot.text


def test_the_plot_is_told_in_sentences_to_those_who_do_not_see_it():
    plot = Page(funnel_plot(funnel(1000, [("question", 8)])))
    frames = plot.all("svg")
    assert [frame["role"] for frame in frames] == ["img", "img"]
    named = {attributes["id"] for tag, attributes in plot.elements if tag in ("title", "desc") and attributes}
    assert {name for frame in frames for name in frame["aria-labelledby"].split()} == named
    assert "1,000 rows read. Dropped: 8 asks, does not describe. 992 posts kept" in plot.text


def test_a_rule_that_dropped_nothing_stands_in_the_table_and_not_in_the_plot():
    page = render(funnel(posts=[("withheld", 0), ("question", 5)]), {})
    assert "withheld" in section(page, "Step by step")
    assert "withheld" not in section(page, "From rows to pairs")


def test_the_table_gives_what_each_step_dropped_its_share_and_what_is_left():
    page = render(funnel(2000, [("question", 500)]), {})
    row = next(row for row in section(page, "Step by step").split("<tr") if "question" in row)
    assert re.findall(r'class="figure">([^<]*)<', row) == ["500", "25.0\xa0%", "1,500"]
    assert "<td>–</td>" in row


def test_published_counts_stand_beside_the_rows_and_the_pairs():
    rows = section(render(funnel(), {}), "Step by step").split("<tr")
    read = next(row for row in rows if "rows read" in row)
    assert "243,375" in read and "208,414" not in read
    assert all(count in rows[-1] for count in ("116,504", "59,869", "32,041", "208,414"))


def test_the_published_counts_add_up_and_say_where_they_stand():
    source, counts = read_openpath_counts()
    assert source["doi"].startswith("10.1038/")
    *parts, whole = [one.count for one in counts if one.beside == "pairs"]
    assert sum(parts) == whole
    assert all(one.place and one.what for one in counts)


def test_every_reason_has_words_and_the_report_says_what_it_does_and_whose_it_is():
    assert set(REASONS) <= set(LABELS)
    rows = section(render(funnel(), {}), "Rules").split("<tr")[2:]
    assert [re.search(r"<code>(\w+)</code>|<td>(\w+)</td>", row).group() for row in rows] == [
        f"<code>{reason}</code>" if LABELS[reason] != reason else f"<td>{reason}</td>" for reason in REASONS
    ]
    assert not any("<td>–</td>" in row for row in rows)


def test_a_rule_on_posts_is_described_by_its_own_docstring_and_citation():
    page = Page(section(render(funnel(), {}), "Rules"))
    for rule in RULES:
        assert rule.check.__doc__.splitlines()[0] + rule.cites in page.text


def test_ten_examples_of_a_reason_are_shown_with_small_pictures_encoded_anew():
    picture = io.BytesIO()
    tissue(1, 400).save(picture, "JPEG", comment=b"as it was found", quality=90)
    rows = [Example(str(n), f"text {n}", "3 bits", picture.getvalue()) for n in range(12)]
    page = render(funnel(pairs=[("near_duplicate", 12)]), {"near_duplicate": rows})
    images = Page(page).all("img")
    assert len(images) == 10 and "10 of 12" in page
    assert (images[0]["width"], images[0]["height"]) == ("150", "150")
    content = base64.b64decode(images[0]["src"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (150, 150)
    assert b"as it was found" not in content


@pytest.mark.parametrize("reason", ["deleted", "sensitive", "withheld", "image_opted_out"])
def test_what_was_withdrawn_is_named_and_not_shown(reason):
    row = Example("4711", "her secret words", "saw her secret", jpeg(tissue(1)))
    page = render(funnel(), {reason: [row]})
    assert "secret" not in page and "<img" not in page
    assert "not shown: " in page and "4711" in page


def test_a_row_that_fell_for_another_reason_is_hidden_if_its_caller_says_so():
    row = Example("4711", "her secret words", "saw her secret", jpeg(tissue(1)), hidden="marked sensitive")
    page = render(funnel(), {"question": [row]})
    assert "secret" not in page and "<img" not in page
    assert "not shown: marked sensitive" in page


def test_entities_of_a_post_are_decoded_once_and_then_escaped():
    row = Example("1", "H&amp;E &lt;script&gt; p &amp;lt; 0.05 isn&#39;t")
    page = render(funnel(), {"question": [row]})
    assert "H&amp;E &lt;script&gt; p &amp;lt; 0.05 isn&#x27;t" in page


@pytest.mark.parametrize(
    "page",
    [
        lambda: render(funnel(), {"question": [Example(HOSTILE, HOSTILE, HOSTILE)]}),
        lambda: render(funnel(), {HOSTILE: [Example("1", "a")]}),
        lambda: render(funnel(), {"question": [Example("1", "a", hidden=HOSTILE)]}),
        lambda: render(funnel(posts=[(HOSTILE, 5)]), {}),
        lambda: render(funnel(splits={HOSTILE: {"pairs": 3, "first": HOSTILE}}), {}),
        lambda: render(funnel(out=HOSTILE, version=HOSTILE, source={"posts": HOSTILE}), {}),
        lambda: render(funnel(source=HOSTILE, split_by=HOSTILE, flags={HOSTILE: 1}), {}),
        lambda: render(funnel(languages={HOSTILE: 3}, files=[{"file": HOSTILE, "posts": 1}]), {}),
        lambda: render(funnel(), {}, [RuleScore(HOSTILE, 3, 3, 1.0, 1.0)]),
    ],
)
def test_hostile_text_stays_text_wherever_it_stands(page):
    html = page()
    found = Page(html)
    assert "script" not in {tag for tag, _ in found.elements}
    assert html.count("</style>") == 1
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert found.all("img") == []


def test_no_character_turns_its_surroundings_or_breaks_the_file():
    text = "\ud83d alone \u202eturned\u202c \u2066 \x00 \x1b[31m &#x202e; مرحبا"
    row = Example(text, text, text)
    page = render(funnel(source="\udcff"), {"question": [row]})
    page.encode("utf-8")
    assert re.search("[\u202a-\u202e\u2066-\u2069\ud800-\udfff\x00\x1b]", page) is None
    assert "مرحبا" in page and 'dir="auto"' in page


def test_a_picture_that_cannot_be_decoded_is_said_to_be_so():
    for content in (b"", b"<svg onload=alert(1)>", jpeg(tissue(1))[:300]):
        page = render(funnel(), {"image_undecodable": [Example("1", "text", "broken", content)]})
        assert "picture cannot be shown" in page and "<img" not in page


def test_a_picture_of_too_many_pixels_or_bytes_is_not_decoded(monkeypatch):
    examples = {"question": [Example("1", "text", "", jpeg(tissue(1)))]}
    assert "<img" in render(funnel(), examples)
    for limit in ("PICTURE_PIXELS", "PICTURE_BYTES"):
        with monkeypatch.context() as change:
            change.setattr(report_examples, limit, 1000)
            assert "<img" not in render(funnel(), examples)


def test_a_long_id_is_short_and_stands_in_full_where_the_pointer_rests():
    name = "1477872739069985660_3_1477872739069985659"
    page = Page(render(funnel(), {"near_duplicate": [Example(name, "text", f"3 bits from {name}")]}))
    assert name not in page.text and "147787…985659" in page.text and "3 bits from 147787…985659" in page.text
    titles = [attributes.get("title") for attributes in page.all("p")]
    assert name in titles and f"3 bits from {name}" in titles


def test_a_text_without_end_costs_no_time():
    endless = "a" * 2_000_000 + "1" * 8
    start = time.process_time()
    page = render(funnel(), {"question": [Example(endless, endless, endless)]})
    assert time.process_time() - start < 2
    assert len(page) < 100_000


def test_twenty_reasons_with_ten_noisy_pictures_stay_below_three_megabytes():
    contents = [noise(seed) for seed in range(10)]
    rows = [Example(str(n), "word " * 200, "seen " * 50, content) for n, content in enumerate(contents)]
    page = render(funnel(), {reason: rows for reason in ["kept", *REASONS]})
    assert page.count("<img") == 10 * (1 + len(set(REASONS) - set(report_examples.WITHDRAWN)))
    assert len(page.encode()) * 20 * 10 / page.count("<img") < 3_000_000


def test_the_page_needs_neither_network_nor_script():
    rows = [Example("1", "a text", "seen", jpeg(tissue(1)))]
    html = render(funnel(files=[], languages={"en": 3}), {"kept": rows})
    page = Page(html)
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[\w+/=]+", "", html))
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object"} == set()
    policy = next(one["content"] for one in page.all("meta") if "http-equiv" in one)
    assert "default-src 'none'" in policy


def test_the_research_notice_stands_on_the_page():
    assert "Research software, not for diagnosis." in render(funnel(), {})


def test_the_header_names_source_folder_and_version():
    page = Page(
        render(funnel(out="shards", version="0.1.0+abc", source={"platform": "table", "posts": "a.csv"}), {})
    )
    head = page.text.split("Research software")[0]
    assert all(word in head for word in ("table, a.csv", "shards", "0.1.0+abc"))


def test_of_many_files_fifty_are_listed_and_the_rest_summed():
    files = [
        {
            "file": f"p{n}.jsonl",
            "found": n,
            "posts": n,
            "retweets": 1,
            "edits": 0,
            "media": 2,
            "malformed": 0,
            "other": 0,
        }
        for n in range(60)
    ]
    table = Page(section(render(funnel(files=files), {}), "Files of the dump")).text
    assert "p49.jsonl" in table and "p50.jsonl" not in table
    assert f"10 more files{sum(range(50, 60))}" in table
    assert f"all 60 files{sum(range(60)):,}" in table


def test_splits_may_be_numbers_or_tell_groups_and_dates():
    plain = section(render(funnel(splits={"train": 8000, "test": 2000}), {}), "Splits")
    assert "8,000" in plain and "80.0\xa0%" in plain and "groups" not in plain
    full = {"pairs": 8000, "groups": 1234, "first": "2021-01-05T10:00:00+00:00", "last": "2022-02-03"}
    told = section(render(funnel(splits={"train": full, "test": {"pairs": 2000}}), {}), "Splits")
    assert all(word in told for word in ("8,000", "1,234", "2021-01-05<", "2022-02-03", "80.0\xa0%"))


def test_leaks_count_as_checked_only_if_the_check_passed():
    told = "no two splits share a group, a picture or a near-duplicate"
    assert told in render(funnel(leak_check="passed"), {})
    assert told not in render(funnel(), {})
    assert told not in render(funnel(leak_check="off"), {})


def test_the_wilson_interval_is_the_published_one():
    # Newcombe 1998, doi:10.1002/(sici)1097-0258(19980430)17:8<857::aid-sim777>3.0.co;2-e, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(29, 29)[1] == 1.0


def test_rules_are_scored_with_n_and_intervals_and_without_where_nothing_was_dropped():
    scores = [RuleScore("question", 45, 37, 1.0, 37 / 45), RuleScore("withheld", 3, 0, 1.0, 0.0)]
    rows = section(render(funnel(), {}, scores), "Rules against the known truth").split("<tr")[2:]
    figures = [re.findall(r'class="figure">([^<]*)<', row) for row in rows]
    assert figures[0] == ["45", "37", "1.000 [0.906, 1.000]", "0.822 [0.687, 0.907]"]
    assert figures[1][:3] == ["3", "0", "–"]


def test_flags_and_languages_are_counted_in_shares():
    page = render(
        funnel(pictures=200, flags={"panels": 50}, languages={f"l{n}": 30 - n for n in range(27)}), {}
    )
    assert "several panels" in page and "25.0\xa0%" in section(page, "Mixed figures")
    table = Page(section(page, "Languages")).text
    assert table.index("l0") < table.index("l1") and "l25" not in table and "2 others9" in table


def test_a_curation_of_nothing_has_a_report():
    empty = funnel(0, [], 0, [], {"train": 0, "val": 0, "test": 0})
    assert "0 rows read" in Page(render(empty, {})).text


def test_the_same_curation_gives_the_same_page():
    rows = {"question": [Example("1", "text", "?", jpeg(tissue(1)))]}
    assert render(funnel(), rows) == render(funnel(), rows)


def test_the_colours_are_those_of_the_report_of_evaluation(tmp_path):
    def colours(page):
        return re.findall(r"--(ink|soft|line|paper|tint|c[0-3]):\s*(#\w+)", page)

    theirs = colours(write_report(tmp_path / "report.html", "Scores", []).read_text("utf-8"))
    mine = colours(render(funnel(), {}))
    assert len(mine) == 18 and set(mine) == set(theirs)
