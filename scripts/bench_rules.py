"""Measures the rules on posts on one core: posts per second, by rule and over the whole chain.

    .venv/bin/python scripts/bench_rules.py [--posts 20000] [--repeats 5] [--config rules/openpath.yaml]

The posts are made here from the project's own words, in a mixture as feeds have it: most are descriptions
that pass every rule. No text occurs twice, so nothing could be remembered. The figure is the best of
several repeats, between which the parts take turns, because other work on the machine only ever slows a
repeat down.
"""

from __future__ import annotations

import argparse
import platform
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from pathclip.config import build, config_dir
from pathclip.curate.rules import RULES, RuleSettings, Seen, first_reason
from pathclip.curate.text import TextCleaner
from pathclip.types import Media, Post

SITES = [
    "stomach",
    "skin of the back",
    "left breast",
    "thyroid",
    "right kidney",
    "lung",
    "liver",
    "parotid",
    "colon",
]
FINDINGS = [
    *("signet ring cell carcinoma", "granulomatous inflammation", "pleomorphic adenoma", "leiomyosarcoma"),
    *(
        "intestinal metaplasia",
        "papillary carcinoma",
        "follicular lymphoma",
        "interface dermatitis",
        "schwannoma",
    ),
]
DETAILS = [
    *("with brisk mitotic activity", "cells arranged in nests and cords", "note the nuclear grooves"),
    *("desmin+ and SMA+, S100-", "Ki-67 <5%", "H&amp;E 40x", "t(9;22) shown by FISH", "CK7+/CK20-"),
    *("background of dense lymphocytes", "with µm-sized calcifications", "margins were free"),
    *("prominent nucleoli and clear cytoplasm", "surrounded by a thick fibrous capsule"),
]
TAGS = ["GIPath", "dermpath", "pathology", "BreastPath", "PulmPath", "SurgPath", "BSTpath", "HemePath"]
QUESTIONS = ["What would you call it?", "Curious how others grade this", "Thoughts?", "dx please"]
RHETORIC = ["Who doesn't love these?", "Ever wondered what it looks like? Here it is."]
ADVERTISEMENTS = ["Register now for our course on", "We are hiring, all who know", "20% off the new atlas of"]
FOREIGN = ["Biopsia de piel con infiltrado por linfocitos y", "Hautbiopsie mit einem dichten Infiltrat und"]


def posts(n: int, seed: int = 0) -> Iterator[tuple[Post, Post | None]]:
    """Posts with what they answer; of a hundred about 78 are descriptions that stay."""
    pick = random.Random(seed)
    pictured = Post("0", "twitter", "Case of the day", media=(Media("m"),), hashtags=("dermpath",))
    for number in range(n):
        start = pick.choice(["", "A ", "Case of ", "Beautiful "])
        words = [
            f"{start}{pick.choice(FINDINGS)} of the {pick.choice(SITES)}",
            f"{pick.randrange(20, 90)} year old {pick.choice(['man', 'woman', 'patient'])}",
            *pick.sample(DETAILS, pick.randrange(1, 5)),
        ]
        kind = pick.random()
        if kind < 0.06:
            words.append(pick.choice(QUESTIONS))
        elif kind < 0.09:
            words.insert(0, pick.choice(RHETORIC))
        elif kind < 0.12:
            words.insert(0, pick.choice(ADVERTISEMENTS))
        elif kind < 0.15:
            words = [f"{pick.choice(FOREIGN)} {pick.choice(FINDINGS)}"]
        text = ". ".join(words)
        if kind > 0.5:
            text += f" https://t.co/{pick.getrandbits(50):x}"
        if kind > 0.7:
            text = f"@dr{number} {text}"
        if pick.random() < 0.3:
            text += " " + pick.choice("🔬💜🙏👇😍")
        tags = pick.sample(TAGS, pick.randrange(1, 4))
        text += f" {number}\n" + " ".join(f"#{tag}" for tag in tags)
        moment = datetime(2021, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        flags = frozenset({"retweet"}) if pick.random() < 0.02 else frozenset()
        if 0.15 < kind < 0.25:
            reply = pick.choice(["Looks like a", "Agree with", "Thanks, great case", "I favour"])
            yield (
                Post(
                    str(number),
                    "twitter",
                    f"@dr {reply} {pick.choice(FINDINGS)} {number}",
                    created_at=moment,
                    in_reply_to="0",
                ),
                pictured,
            )
        else:
            yield (
                Post(
                    str(number),
                    "twitter",
                    text,
                    created_at=moment,
                    language="en" if pick.random() < 0.7 else "und",
                    media=(Media("m"),),
                    hashtags=tuple(tags),
                    flags=flags,
                ),
                None,
            )


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, so that waiting for a core does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--posts", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", default="rules/openpath.yaml", help="a file of conf/")
    given = parser.parse_args()
    settings = build(yaml.safe_load((config_dir() / given.config).read_text(encoding="utf-8")), "rules")
    assert isinstance(settings, RuleSettings)
    cleaner = TextCleaner()
    made = list(posts(given.posts))

    def chain() -> None:
        for post, answered in made:
            first_reason(Seen(post, cleaner, answered), settings)

    def captions() -> None:
        for post, _ in made:
            cleaner(post.text)

    def alone(check: Callable[[Seen, RuleSettings], object]) -> Callable[[], None]:
        """One rule on posts whose caption and words are known, as in the chain they are by then."""

        def work() -> None:
            for one in ready:
                check(one, settings)

        return work

    ready = [Seen(post, cleaner, answered) for post, answered in made]
    for one in ready:
        _ = one.words, one.tokens
    first_reason(Seen(made[0][0], cleaner), settings)  # vocabularies are read and compiled once
    reasons = Counter((first_reason(one, settings) or ("kept", ""))[0] for one in ready)

    def texts() -> None:
        for post, answered in made:
            _ = Seen(post, cleaner, answered).tokens

    parts = {"whole chain": chain, "cleaning": captions, "words of wordings": texts}
    parts |= {rule.reason: alone(rule.check) for rule in RULES}
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(given.repeats):
        for name, work in parts.items():
            best[name] = min(best[name], seconds(work))
    print(f"{processor()}, Python {platform.python_version()}, one core, best of {given.repeats}")
    print("  ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
    for name, taken in best.items():
        print(f"{name:25} {given.posts / taken:12,.0f} posts/s {1e6 * taken / given.posts:8.2f} µs/post")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
