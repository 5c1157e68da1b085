import asyncio
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from PIL import Image

from pathclip.config import build
from pathclip.curate import fetch_network
from pathclip.curate.fetch import Fetched, fetch
from pathclip.curate.fetch_network import is_public, literal_address
from pathclip.curate.fetch_policy import FetchSettings, opt_out, pause, retry_after
from pathclip.errors import ConfigError, DataError
from pathclip.types import Media

from .feed import jpeg, tissue
from .picture_server import Answer, PictureServer

PICTURE = jpeg(tissue(0))
QUICK = {"allow_private": True, "backoff": 0.01, "timeout": 2.0, "total_timeout": 5.0}


def settings(**changed) -> FetchSettings:
    return FetchSettings(**QUICK | changed)


def get(folder: Path, *urls: str, **changed) -> list[Fetched]:
    """Fetches some URLs; the results in the order of the URLs."""
    results = {
        one.key: one
        for one in fetch(((str(n), url) for n, url in enumerate(urls)), folder, settings(**changed))
    }
    return [results[str(n)] for n in range(len(urls))]


def one(folder: Path, answer, **changed) -> tuple[Fetched, int]:
    """What becomes of one picture that a server answers so, and how often it was asked."""
    with PictureServer({"/a.jpg": answer}) as server:
        return get(folder, server.url("/a.jpg"), **changed)[0], server.requests["/a.jpg"]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_pictures_are_stored_by_their_url_with_the_suffix_of_their_content(tmp_path):
    png = io.BytesIO()
    tissue(1).save(png, "PNG")
    with PictureServer({"/a.jpg": Answer(PICTURE), "/b.jpg": Answer(png.getvalue())}) as server:
        a, b = get(tmp_path, server.url("/a.jpg"), server.url("/b.jpg"))
    assert (a.reason, a.attempts, a.from_disk) == ("", 1, False)
    assert a.path.read_bytes() == PICTURE and b.path.read_bytes() == png.getvalue()
    assert a.path.suffix == ".jpg" and b.path.suffix == ".png"
    assert a.path.parent == tmp_path / a.path.name[:2]
    assert a.path.stat().st_mode & 0o777 == 0o644


def test_a_second_run_asks_for_nothing_that_is_there(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        first = get(tmp_path, server.url("/a.jpg"), server.url("/gone.jpg"))
        again = get(tmp_path, server.url("/a.jpg"), server.url("/gone.jpg"))
        assert server.requests == {"/a.jpg": 1, "/gone.jpg": 1}
    assert [one.path for one in again] == [one.path for one in first]
    assert [(one.reason, one.attempts, one.from_disk) for one in again] == [
        ("", 0, True),
        ("image_unreachable", 0, True),
    ]


def test_every_request_gets_one_result_whatever_becomes_of_it(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        requests = [
            Media("3_1", url=server.url("/a.jpg")),
            Media("3_2", url=server.url("/a.jpg")),
            Media("3_3"),
            ("3_4", "no url"),
            ("3_5", server.url("/gone.jpg")),
            ("3_5", "http://[broken"),
        ]
        results = list(fetch(requests, tmp_path, settings()))
        assert server.requests["/a.jpg"] == 1
    assert sorted(one.key for one in results) == ["3_1", "3_2", "3_3", "3_4", "3_5", "3_5"]
    assert sorted(one.key for one in results if one.path) == ["3_1", "3_2"]
    assert sorted(one.from_disk for one in results if one.path) == [False, True]


def test_requests_are_drawn_only_a_bounded_number_ahead(tmp_path):
    drawn = itertools.count()
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        requests = ((str(n), server.url(f"/a.jpg?{n}")) for n in drawn)
        with contextlib.closing(fetch(requests, tmp_path, settings(concurrency=2))) as results:
            for _ in range(20):
                assert next(results).path
    assert next(drawn) <= 20 + 16 + 1


def test_no_more_requests_at_one_time_than_allowed(tmp_path):
    def run(**changed) -> int:
        with PictureServer({"/a.jpg": Answer(PICTURE, wait=0.05)}) as server:
            urls = [server.url(f"/a.jpg?{n}{len(changed)}{changed['concurrency']}") for n in range(12)]
            assert all(one.path for one in get(tmp_path, *urls, **changed))
            return server.most_under_way

    assert run(concurrency=3) == 3
    assert run(concurrency=8, per_host=2) == 2
    assert run(concurrency=12, per_host=12) > 8


def test_a_busy_host_does_not_keep_others_from_their_turn(tmp_path):
    slow, quick = Answer(PICTURE, wait=0.3), Answer(PICTURE)
    with PictureServer({"/slow.jpg": slow, "/quick.jpg": quick}) as server:
        requests = [(f"slow{n}", server.url(f"/slow.jpg?{n}", "slow.example")) for n in range(4)]
        requests.append(("quick", server.url("/quick.jpg", "quick.example")))
        results = fetch(
            requests, tmp_path, settings(concurrency=2, per_host=1), lambda host, port: ["127.0.0.1"]
        )
        assert next(results).key == "quick"
        results.close()


def test_a_host_is_asked_no_faster_than_its_delay(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        began = time.monotonic()
        get(tmp_path, *(server.url(f"/a.jpg?{n}") for n in range(4)), per_host_delay=0.1)
    assert time.monotonic() - began >= 0.3


def test_a_failure_that_passes_is_tried_again(tmp_path):
    def answer(asked):
        return Answer(PICTURE) if asked.number == 3 else Answer(b"", [500, 429][asked.number - 1])

    result, requests = one(tmp_path, answer, retries=2)
    assert (result.reason, result.attempts, requests) == ("", 3, 3)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_remembered_until_asked_to_retry(tmp_path, status):
    with PictureServer(
        {"/a.jpg": lambda asked: Answer(PICTURE, status if asked.number == 1 else 200)}
    ) as server:
        url = server.url("/a.jpg")
        assert get(tmp_path, url)[0].detail == f"HTTP {status}"
        assert get(tmp_path, url)[0].detail == f"HTTP {status}"
        assert server.requests["/a.jpg"] == 1
        assert get(tmp_path, url, retry_failed=True)[0].path
        assert get(tmp_path, url)[0].path
        assert server.requests["/a.jpg"] == 2


@pytest.mark.parametrize("status", [500, 403])
def test_what_may_come_back_is_asked_for_by_the_next_run(tmp_path, status):
    with PictureServer(
        {"/a.jpg": lambda asked: Answer(PICTURE, status if asked.number <= 1 else 200)}
    ) as server:
        assert get(tmp_path, server.url("/a.jpg"), retries=0)[0].reason == "image_unreachable"
        assert get(tmp_path, server.url("/a.jpg"), retries=0)[0].path


def test_a_spoilt_note_of_a_failure_is_as_none(tmp_path):
    with PictureServer(
        {"/a.jpg": lambda asked: Answer(PICTURE, 404 if asked.number == 1 else 200)}
    ) as server:
        get(tmp_path, server.url("/a.jpg"))
        (note,) = tmp_path.rglob("*.json")
        for content in (note.read_bytes()[:-9], b"[]", b'{"url": 1}', b""):
            note.write_bytes(content)
            assert get(tmp_path, server.url("/a.jpg"))[0].path
            next(tmp_path.rglob("*.jpg")).unlink()


def test_the_server_says_how_long_to_wait_and_the_settings_how_long_at_most(tmp_path):
    def busy(wait):
        headers = {"Retry-After": wait}
        return lambda asked: Answer(PICTURE) if asked.number == 2 else Answer(b"", 503, headers)

    began = time.monotonic()
    assert one(tmp_path / "a", busy("1"))[0].path
    assert time.monotonic() - began >= 1
    began = time.monotonic()
    assert one(tmp_path / "b", busy("3600"), max_retry_after=0.2)[0].path
    assert 0.2 <= time.monotonic() - began < 1.5


def test_a_host_that_asks_for_a_pause_gets_it_for_all_of_its_pictures(tmp_path):
    asked_at = {}

    def answer(asked):
        asked_at[asked.path] = time.monotonic()
        return Answer(b"", 503, {"Retry-After": "1"}) if asked.path == "/a.jpg?0" else Answer(PICTURE)

    with PictureServer({"/a.jpg": answer}) as server:
        get(tmp_path, server.url("/a.jpg?0"), server.url("/a.jpg?1"), per_host=1, retries=0)
    assert asked_at["/a.jpg?1"] - asked_at["/a.jpg?0"] >= 0.95


def test_retry_after_is_a_number_or_a_date():
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert retry_after("120", now) == 120
    assert retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90
    assert retry_after("Sun, 01 Mar 2026 11:00:00 GMT", now) == 0
    for nonsense in ("", "soon", "-5", "1e9", "٣"):
        assert retry_after(nonsense, now) == 0


def test_pauses_double_and_differ_between_pictures_but_not_between_runs():
    assert pause("http://a", 1, 2.0) == pause("http://a", 1, 2.0) != pause("http://b", 1, 2.0)
    for attempt in range(1, 6):
        whole = 2.0 * 2 ** (attempt - 1)
        assert whole / 2 <= pause("http://a", attempt, 2.0) <= whole


def test_a_further_attempt_comes_after_a_pause(tmp_path):
    began = time.monotonic()
    assert one(tmp_path, lambda asked: Answer(PICTURE, 500 if asked.number == 1 else 200), backoff=0.4)[
        0
    ].path
    assert time.monotonic() - began >= 0.2


def test_no_pause_is_begun_that_would_outlast_the_total_timeout(tmp_path):
    began = time.monotonic()
    result, requests = one(tmp_path, Answer(b"", 500), backoff=20.0, total_timeout=3.0)
    assert (result.detail, requests) == ("HTTP 500", 1)
    assert time.monotonic() - began < 2


def test_a_stalled_server_is_given_up(tmp_path):
    began = time.monotonic()
    result, requests = one(
        tmp_path, Answer(PICTURE[:500], length=len(PICTURE), stall=30), timeout=0.2, retries=1
    )
    assert (result.reason, requests) == ("image_unreachable", 2)
    assert "no byte for 0.2 s" in result.detail
    assert time.monotonic() - began < 3
    assert files(tmp_path) == []


def test_a_trickle_does_not_outlast_the_total_timeout(tmp_path):
    result, requests = one(tmp_path, Answer(PICTURE, trickle=0.02), timeout=1.0, total_timeout=0.5)
    assert (result.reason, requests) == ("image_unreachable", 1)
    assert "0.5 s" in result.detail
    assert files(tmp_path) == []


def test_waiting_for_other_pictures_does_not_count_as_time_of_ones_own(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE, wait=0.1)}) as server:
        urls = [server.url(f"/a.jpg?{n}") for n in range(8)]
        assert all(one.path for one in get(tmp_path, *urls, concurrency=1, total_timeout=0.5))


def test_a_truncated_body_is_never_kept(tmp_path):
    def answer(asked):
        return (
            Answer(PICTURE) if asked.number == 2 else Answer(PICTURE[:500], length=len(PICTURE), stall=0.01)
        )

    assert one(tmp_path / "a", answer)[0].path.read_bytes() == PICTURE
    result, _ = one(tmp_path / "b", Answer(PICTURE[:500], length=len(PICTURE), stall=0.01), retries=1)
    assert (result.reason, result.attempts) == ("image_unreachable", 2)
    assert files(tmp_path / "b") == []


def test_a_body_that_does_not_end_is_cut(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE, length=-1, endless=True)}) as server:
        (result,) = get(tmp_path, server.url("/a.jpg"), max_bytes=100_000)
        assert server.sent_bytes < 20_000_000
    assert (result.reason, result.attempts) == ("image_undecodable", 1)
    assert files(tmp_path) == [f"{hashlib.sha256(result.url.encode()).hexdigest()}.json"]


def test_a_declared_size_over_the_cap_is_refused_before_the_body(tmp_path):
    began = time.monotonic()
    result, _ = one(tmp_path, Answer(b"", length=10**12, stall=30), timeout=5.0)
    assert result.reason == "image_undecodable" and "bytes" in result.detail
    assert time.monotonic() - began < 3


def test_a_setting_that_is_loosened_lifts_the_failures_it_caused(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        url = server.url("/a.jpg")
        for tight in ({"max_bytes": 1000}, {"max_pixels": 1000}):
            assert get(tmp_path, url, **tight)[0].reason == "image_undecodable"
        assert get(tmp_path, url, max_pixels=900)[0].from_disk
        assert get(tmp_path, url, max_pixels=100_000)[0].path


def test_pixels_are_counted_on_the_header_alone(tmp_path):
    png = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(png, "PNG")
    result, _ = one(tmp_path, Answer(png.getvalue()))
    assert (result.reason, result.path) == ("image_undecodable", None)
    assert "pixels" in result.detail


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>no picture</html>", b"", b"GIF", PICTURE[:20], b"%PDF-1.7 aaaaaaaaaaaa"]
)
def test_what_is_no_picture_is_refused_whatever_its_type_says(tmp_path, body):
    result, requests = one(tmp_path, Answer(body))
    assert (result.reason, result.path, requests) == ("image_undecodable", None, 1)
    assert [Path(name).suffix for name in files(tmp_path)] == [".json"]


def test_a_picture_is_one_whatever_its_type_says(tmp_path):
    assert one(tmp_path, Answer(PICTURE, headers={"Content-Type": "text/html"}))[0].path


def test_nothing_compressed_is_asked_for_or_taken(tmp_path):
    bomb = gzip.compress(PICTURE + bytes(5_000_000))
    with PictureServer({"/a.jpg": Answer(bomb, headers={"Content-Encoding": "gzip"})}) as server:
        (result,) = get(tmp_path, server.url("/a.jpg"))
        assert server.asked[0].headers["accept-encoding"] == "identity"
    assert (result.reason, result.path) == ("image_undecodable", None)
    assert "gzip" in result.detail


def test_what_is_no_picture_is_not_read_to_its_end(tmp_path):
    page = Answer(b"<p>no picture</p>" * 1000, length=-1, endless=True)
    with PictureServer({"/a.jpg": page}) as server:
        (result,) = get(tmp_path, server.url("/a.jpg"))
        assert server.sent_bytes < 20_000_000
    assert "not a JPEG" in result.detail


@pytest.mark.parametrize(
    "header",
    [
        {"X-Robots-Tag": "noai"},
        {"X-Robots-Tag": "NoImageAI"},
        {"x-robots-tag": "nofollow, noindex"},
        {"X-Robots-Tag": "max-snippet: 0, noimageindex"},
        {"X-Robots-Tag": "pathclip: noai"},
        {"X-Robots-Tag": "otherbot: nofollow, pathclip: noai"},
        {"X-Robots-Tag": "*: none"},
        {"tdm-reservation": "1"},
    ],
)
def test_an_opt_out_is_respected_and_remembered(tmp_path, header):
    with PictureServer({"/a.jpg": Answer(PICTURE, headers=header)}) as server:
        assert get(tmp_path, server.url("/a.jpg"))[0].reason == "image_opted_out"
        assert get(tmp_path, server.url("/a.jpg"))[0].reason == "image_opted_out"
        assert server.requests["/a.jpg"] == 1
    assert [Path(name).suffix for name in files(tmp_path)] == [".json"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Robots-Tag", "nofollow")],
        [("X-Robots-Tag", "otherbot: noai, noindex")],
        [("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST")],
        [("tdm-reservation", "0")],
    ],
)
def test_what_is_no_opt_out_for_us_is_none(headers):
    assert opt_out(httpx.Headers(headers), "pathclip") == ""


def test_every_line_of_a_repeated_header_is_read():
    headers = httpx.Headers([("X-Robots-Tag", "otherbot: noai"), ("X-Robots-Tag", "noai")])
    assert opt_out(headers, "pathclip") == "X-Robots-Tag: noai"


def test_a_picture_taken_without_respect_is_not_used_by_a_run_with_it(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE, headers={"X-Robots-Tag": "noai"})}) as server:
        url = server.url("/a.jpg")
        assert get(tmp_path, url, respect_opt_outs=False)[0].path
        assert get(tmp_path, url)[0].reason == "image_opted_out"
        assert get(tmp_path, url, respect_opt_outs=False)[0].path
        assert server.requests["/a.jpg"] == 1


def test_redirects_are_followed_so_far(tmp_path):
    routes = {f"/{n}": Answer(b"", 302, {"Location": f"/{n + 1}"}) for n in range(3)} | {
        "/3": Answer(PICTURE)
    }
    with PictureServer(routes) as server:
        assert get(tmp_path / "a", server.url("/0"), max_redirects=3)[0].path
        (result,) = get(tmp_path / "b", server.url("/0"), max_redirects=2)
        assert result.detail == "more than 2 redirects"
        assert get(tmp_path / "b", server.url("/0"), max_redirects=3)[0].path


def test_a_redirect_loop_ends_and_is_remembered(tmp_path):
    with PictureServer({"/a.jpg": Answer(b"", 301, {"Location": "/a.jpg"})}) as server:
        assert get(tmp_path, server.url("/a.jpg"))[0].reason == "image_unreachable"
        assert server.requests["/a.jpg"] == 6
        assert get(tmp_path, server.url("/a.jpg"))[0].from_disk


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "data:image/gif;base64,R0lGODlh",
        "ftp://a/b.jpg",
        "pipe:id",
        "http:///a",
        "a.jpg",
        "\0",
    ],
)
def test_only_http_and_https_are_asked_for(tmp_path, url):
    (result,) = get(tmp_path / "a", url)
    assert (result.reason, result.path) == ("image_unreachable", None)
    if url.isprintable():
        result, _ = one(tmp_path / "b", Answer(b"", 302, {"Location": url}))
        assert result.reason == "image_unreachable"
    assert not [name for name in files(tmp_path) if not name.endswith(".json")]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "0"],
)
def test_the_own_machine_is_out_of_reach_in_any_notation(tmp_path, host):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        (result,) = get(tmp_path, server.url("/a.jpg", host), allow_private=False)
        assert not server.requests
    assert result.reason == "image_unreachable" and "is not a public address" in result.detail


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "203.0.113.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "nonsense",
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_addresses_that_are_public(address):
    assert is_public(address)


def test_an_address_is_known_in_octal_and_hexadecimal_notation():
    assert [literal_address(host) for host in ("0177.0.0.1", "0x7f.1", "017700000001")] == ["127.0.0.1"] * 3


def test_a_name_server_is_not_asked_about_an_address(tmp_path):
    requests = [("a", "http://2130706433/a.jpg")]
    (result,) = fetch(requests, tmp_path, settings(allow_private=False), lambda host, port: ["8.8.8.8"])
    assert "127.0.0.1 is not a public address" in result.detail


def test_names_are_no_addresses():
    assert [literal_address(host) for host in ("a.example", "12.example", "1.2.3.4.example")] == [None] * 3


def test_a_name_of_a_private_address_is_refused_even_beside_a_public_one(tmp_path):
    for addresses in (["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::1"]):
        requests = [("a", "http://pictures.example/a.jpg")]
        (result,) = fetch(
            requests, tmp_path, settings(allow_private=False), lambda host, port, a=addresses: a
        )
        assert "is not a public address" in result.detail


def test_the_address_that_was_checked_is_the_one_connected_to(tmp_path, monkeypatch):
    # Rebinding: the second answer would be another. There must be no second question, here or below.
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("looked up behind our back"))
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        requests = [("a", server.url("/a.jpg", "pictures.example"))]
        (result,) = fetch(requests, tmp_path, settings(), lambda host, port: next(answers))
        assert result.path
        assert server.asked[0].headers["host"] == f"pictures.example:{server.port}"
    assert next(answers) == ["169.254.169.254"]


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/a",
        "http://169.254.169.254/latest",
        "http://[::1]:80/",
        "http://2130706434/",
        "//192.168.0.1/a",
    ],
)
def test_a_redirect_to_a_private_address_is_refused(tmp_path, monkeypatch, target):
    # The loopback stands for the internet here; everything else is judged as ever.
    monkeypatch.setattr(
        fetch_network, "is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )
    result, _ = one(tmp_path, Answer(b"", 302, {"Location": target}), allow_private=False)
    assert result.reason == "image_unreachable" and "is not a public address" in result.detail


def test_a_host_without_address_is_not_tried_again(tmp_path):
    def resolve(host, port):
        calls.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    calls = []
    (result,) = fetch([("a", "http://nowhere.example/a.jpg")], tmp_path, settings(), resolve)
    assert (result.reason, calls) == ("image_unreachable", ["nowhere.example"])


def test_no_cookie_proxy_or_netrc_is_used(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with PictureServer({"/a.jpg": Answer(PICTURE, headers={"Set-Cookie": "a=b"})}) as server:
        url = server.url("/a.jpg").replace("//", "//name:word@")
        assert all(one.path for one in get(tmp_path / "x", url, url + "?2", concurrency=1))
        for asked in server.asked:
            assert set(asked.headers) == {"host", "user-agent", "accept", "accept-encoding"}


def test_closing_early_breaks_off_what_is_under_way(tmp_path):
    slow = Answer(PICTURE, trickle=0.05)
    with PictureServer({"/a.jpg": Answer(PICTURE), "/slow.jpg": slow}) as server:
        requests = [("a", server.url("/a.jpg"))] + [(str(n), server.url(f"/slow.jpg?{n}")) for n in range(4)]
        results = fetch(requests, tmp_path, settings())
        assert next(results).key == "a"
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 2
    assert len(files(tmp_path)) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_one_connection_serves_many_pictures_and_failures(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        urls = [server.url(f"/{name}?{n}") for n in range(4) for name in ("a.jpg", "gone.jpg")]
        assert sum(one.path is not None for one in get(tmp_path, *urls, concurrency=1)) == 4
        assert server.connections == 1


def test_a_connection_that_the_server_closes_while_idle_costs_no_attempt(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE, stall=0.001)}) as server:
        results = get(tmp_path, *(server.url(f"/a.jpg?{n}") for n in range(20)), concurrency=1)
    assert all(one.path and one.attempts == 1 for one in results)


def test_a_picture_too_large_for_memory_arrives_whole(tmp_path):
    body = PICTURE + os.urandom(3_000_000)
    assert one(tmp_path, Answer(body))[0].path.read_bytes() == body
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        (result,) = get(tmp_path, server.url("/a.jpg").replace("http:", "https:"), retries=0, timeout=0.3)
        assert not server.requests
    assert result.reason == "image_unreachable"


def test_a_folder_that_cannot_take_a_picture_ends_the_run(tmp_path):
    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        url = server.url("/a.jpg")
        (tmp_path / hashlib.sha256(url.encode()).hexdigest()[:2]).write_text("in the way")
        with pytest.raises(DataError, match=tmp_path.name):
            get(tmp_path, url)


def test_an_error_of_the_one_who_names_the_pictures_is_raised(tmp_path):
    def requests():
        yield "a", "http://127.0.0.1:9/a.jpg"
        raise DataError("line 2: no JSON")

    with pytest.raises(DataError, match="line 2"):
        list(fetch(requests(), tmp_path, settings(retries=0)))


def test_it_works_inside_a_running_event_loop(tmp_path):
    async def notebook():
        return get(tmp_path, server.url("/a.jpg"))

    with PictureServer({"/a.jpg": Answer(PICTURE)}) as server:
        assert asyncio.run(notebook())[0].path


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file"):
        list(fetch([], tmp_path / "file" / "pictures", settings()))


PROGRAM = """
import sys
from pathlib import Path
from pathclip.curate.fetch import fetch
from pathclip.curate.fetch_policy import FetchSettings
requests = [(str(n), f"{sys.argv[2]}?{n}") for n in range(40)]
for one in fetch(requests, Path(sys.argv[1]), FetchSettings(allow_private=True, concurrency=8)):
    print(one.key, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_half_picture_and_the_next_one_goes_on(tmp_path, how):
    body = PICTURE + bytes(200)
    slow = Answer(body, trickle=10.0)
    with PictureServer({"/a.jpg": lambda asked: Answer(body) if int(asked.path[7:]) < 6 else slow}) as server:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), server.url("/a.jpg")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
            for _ in range(6):
                run.stdout.readline()
            while server.under_way < 8:
                time.sleep(0.01)
            run.send_signal(how)
            run.wait(5)
        whole = [path for path in tmp_path.rglob("*") if path.is_file() and ".unfinished" not in path.parts]
        assert len(whole) == 6 and all(path.read_bytes() == body for path in whole)
        left = list((tmp_path / ".unfinished").iterdir())
        assert how == signal.SIGKILL or left == []
        for path in left:
            os.utime(path, (0, 0))  # as old as it would be on the next day
        server.routes["/a.jpg"] = Answer(body)
        results = get(tmp_path, *(server.url(f"/a.jpg?{n}") for n in range(10)))
        assert sum(one.from_disk for one in results) == 6 and all(one.path for one in results)
    assert list((tmp_path / ".unfinished").iterdir()) == []


@pytest.mark.parametrize(
    "name, value",
    [
        ("concurrency", 0),
        ("per_host", 0),
        ("per_host_delay", -1.0),
        ("timeout", 0.0),
        ("total_timeout", float("nan")),
        ("retries", -1),
        ("backoff", float("inf")),
        ("max_bytes", 0),
        ("max_pixels", 0),
        ("max_redirects", -1),
        ("user_agent", ""),
        ("user_agent", "a\r\nCookie: b"),
        ("concurrency", "many"),
        ("respect_opt_outs", "no"),
        ("speed", 1),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name, value):
    node = {"_target_": "pathclip.curate.fetch.FetchSettings", name: value}
    with pytest.raises(ConfigError, match=rf"fetch\.{name}"):
        build(node, "fetch")


def test_a_remembered_failure_can_be_read_by_a_person(tmp_path):
    with PictureServer({}) as server:
        get(tmp_path, server.url("/gone.jpg"))
    (note,) = tmp_path.rglob("*.json")
    row = json.loads(note.read_text())
    assert row["url"].endswith("/gone.jpg") and row["detail"] == "HTTP 404"
