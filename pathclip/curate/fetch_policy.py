"""What the fetcher of pictures may do: its settings and its decisions, without a network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from pathclip.errors import ConfigError

# The four of img2dataset, and Google's 'none', which stands for 'noindex, nofollow'.
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# Directives that themselves have a colon, so that it does not end the name of a crawler.
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_MOST_DETAIL = 300  # characters: parts of a detail are what a server sent
_AT_LEAST = {
    "concurrency": 1,
    "per_host": 1,
    "retries": 0,
    "max_bytes": 1,
    "max_pixels": 1,
    "max_redirects": 0,
    "per_host_delay": 0,
    "backoff": 0,
    "max_retry_after": 0,
}
_POSITIVE = ("timeout", "total_timeout")


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How pictures are downloaded.

    Attributes:
        concurrency: requests at one time, over all hosts.
        per_host: requests at one time to one host.
        per_host_delay: seconds between the beginnings of two requests to one host.
        timeout: seconds to connect, and seconds without a byte after which a download is given up.
        total_timeout: seconds for one picture with all of its attempts and redirects and the pauses between
            them; waiting for other pictures does not count.
        retries: further attempts after a failure that may pass: 408, 425, 429, 5xx, timeouts, lost
            connections.
        backoff: seconds before the first of these; every further pause is twice as long.
        max_retry_after: longest pause in seconds that a server's Retry-After is granted.
        max_bytes: larger files are not downloaded.
        max_pixels: width times height above which a picture is not kept; read from its header.
        max_redirects: how many are followed.
        respect_opt_outs: leave out pictures whose server says noai, noimageai, noindex, noimageindex or none
            (X-Robots-Tag) or reserves text and data mining (tdm-reservation: 1).
        retry_failed: ask again for pictures whose failure was remembered.
        allow_private: also connect to private, loopback and other addresses that are not public. For tests
            on one's own machine only: a dump could otherwise reach into the network it is curated in.
        user_agent: says who asks; the part before '/' is our name where X-Robots-Tag names crawlers.

    Raises:
        ConfigError: a value out of range; names its key.
    """

    concurrency: int = 32
    per_host: int = 8
    per_host_delay: float = 0.0
    timeout: float = 10.0
    total_timeout: float = 60.0
    retries: int = 3
    backoff: float = 0.5
    max_retry_after: float = 30.0
    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 80_000_000
    max_redirects: int = 5
    respect_opt_outs: bool = True
    retry_failed: bool = False
    allow_private: bool = False
    user_agent: str = "pathclip (research software)"

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"fetch.{name}: expected a number of at least {least}, got {value!r}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"fetch.{name}: expected seconds above 0, got {value!r}")
        if not (self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent.strip()):
            raise ConfigError(
                f"fetch.user_agent: expected a name in plain ASCII, as in 'pathclip (you@example.org)', "
                f"got {self.user_agent!r}"
            )

    @property
    def agent(self) -> str:
        """Our name as X-Robots-Tag would write it: 'pathclip' of 'pathclip/1.0 (…)'."""
        return self.user_agent.replace("/", " ").split()[0].lower()


class Failure(Exception):
    """A picture that could not be had, and what follows from that.

    Attributes:
        reason: 'image_unreachable', 'image_opted_out' or 'image_undecodable'.
        detail: what was seen, in words.
        again: another attempt in this run may succeed.
        after: seconds to wait before it, if the server asks for that.
        lasting: the next run need not ask either.
        settings: name → value of the settings without which it would not have failed.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        again: bool = False,
        after: float = 0.0,
        lasting: bool = False,
        settings: Mapping[str, int] | None = None,
    ):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail[:_MOST_DETAIL]
        self.again = again
        self.after = after
        self.lasting = lasting
        self.settings: Mapping[str, int] = dict(settings or {})

    def holds(self, settings: FetchSettings) -> bool:
        """Whether these settings would bring the same failure: none that caused it has been loosened."""
        for name, then in self.settings.items():
            now = getattr(settings, name, None)
            if now is None or (now is not then if isinstance(then, bool) else now > then):
                return False
        return True


def unreachable(detail: str) -> Failure:
    """A failure that another attempt in this run would not mend, and the next run might."""
    return Failure("image_unreachable", detail)


def may_pass(detail: str) -> Failure:
    """A failure that another attempt may mend."""
    return Failure("image_unreachable", detail, again=True)


def parse_url(text: str) -> httpx.URL:
    """The URL, if it is one that may be asked for.

    Raises:
        Failure: not a URL, another scheme than http and https, or no host.
    """
    try:
        url = httpx.URL(text)
        host = url.raw_host
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise unreachable(f"not a URL: {error}") from None
    if url.scheme not in ("http", "https"):
        raise unreachable(f"'{url.scheme[:20]}:' is refused; only http and https are asked for")
    if not host:
        raise unreachable("a URL without a host")
    if url.port is not None and not 0 < url.port < 65536:
        raise unreachable(f"a URL with the port {url.port}")
    return url


def opt_out(headers: httpx.Headers, agent: str) -> str:
    """The header by which a server keeps a picture out of data sets; '' if there is none.

    X-Robots-Tag holds directives for everyone, or after 'name:' for the crawler of that name; those for
    others do not concern us, as in img2dataset. Unlike there, a directive with a value ('max-snippet: 0') is
    no name, and several names may stand in one line, as proxies join headers. tdm-reservation is the header
    of the TDM Reservation Protocol (W3C community group report, 2024).

    Args:
        headers: of the response that carries the picture.
        agent: our own name, in lower case.
    """
    if headers.get("tdm-reservation", "").strip() == "1":
        return "tdm-reservation: 1"
    for line in headers.get_list("x-robots-tag"):
        name = "*"
        for part in line.lower().split(","):
            before, colon, after = (piece.strip() for piece in part.partition(":"))
            if colon and before not in _VALUED:
                name, directive = before, after
            else:
                directive = before
            if name in ("*", agent) and directive in OPT_OUTS:
                return f"X-Robots-Tag: {directive}"
    return ""


def retry_after(value: str, now: datetime) -> float:
    """Seconds that a Retry-After header asks to wait, from a number or an HTTP date; 0 if it says neither.

    Args:
        value: of the header (RFC 9110, 10.2.3).
        now: with a time zone.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def pause(url: str, attempt: int, backoff: float) -> float:
    """Seconds to wait after a failed attempt: doubling, with a jitter that only URL and attempt decide.

    Args:
        url: as asked for.
        attempt: that failed, counted from 1.
        backoff: seconds of the first pause at most.

    Returns:
        Between a half and the whole of backoff · 2^(attempt - 1), so that pictures of one host that failed
        together are not asked for together again.
    """
    digest = hashlib.sha256(f"{attempt} {url}".encode("utf-8", "surrogatepass")).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return backoff * 2.0 ** min(attempt - 1, 30) * (0.5 + share / 2)
