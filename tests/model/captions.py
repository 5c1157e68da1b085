"""A thousand captions as people write them: capitals, accents, entities, mojibake, emoji, long ones."""

from __future__ import annotations

import random

_FINDINGS = [
    *("signet ring cells", "keratin pearls", "Reed–Sternberg cell", "koilocytes", "psammoma bodies"),
    *("Call-Exner bodies", "naïve lymphocytes", "Müllerian remnant", "Sjögren's sialadenitis", "H&E"),
    *("CD20+, CD3−, Ki-67 ~80%", "μ-heavy chain", "10× objective", "Grade 3/3", "pT2N1(mi)M0"),
    *("p16INK4a_positive", "½ of the core", "β-catenin", "“ground glass” nuclei", "Crohn’s disease"),
]
_PLACES = ["colon", "LUNG", "Breast", "skin of the left ear", "Zökum", "œsophage", "胃", "jejunum"]
_MANNERS = [
    "an image of {}",
    "{}!!!",
    "What's your diagnosis? {} #pathology @someone https://t.co/abc",
    "H&amp;E: {}",
    "H&amp;amp;E, {} &lt;b&gt;bold&lt;/b&gt;",
    "H&amp;amp;E <i>{}</i>",  # beside a tag ftfy leaves entities alone
    "caf\u00c3\u00a9 slide, {}",  # mojibake
    "\u00e2\u20ac\u0153{}\u00e2\u20ac\u009d",  # mojibake of quotes
    "  {}\t\twith   spaces\nand lines\r\n ",
    "{} 🔬🧫 😀",
    "don't we'll they've I'm {}",
    "ﬁbrosis & ﬂuid: {}",
    "Ｆｕｌｌ width, {}",
    "{} …  and—dashes–too",
    "a&b &copy 2020 &nbsp;{}",
    "E\u0301cole d\u00e9compos\u00e9e, {}",
    "a_b__c {} x^2 ~5 `code` [1] {{2}} | \\ /",
    "No. 123,456.78 {} 0.5mm 3x3x3",
    "\u200bzero\u200dwidth {}",
]
ODD = ["", " ", "\n", "...", "🔬", "ΣΑΣ", "a" * 300, "word " * 120, "\u00a0", "&", "&&amp;", "<>", "\x07bell"]


def captions(n: int = 1000) -> list[str]:
    """The same ones at every call."""
    chance = random.Random(0)
    found = list(ODD)
    while len(found) < n:
        parts = chance.sample(_FINDINGS, chance.randint(1, 8))
        text = f"{', '.join(parts)} in {chance.choice(_PLACES)}"
        case = chance.choice([str, str.upper, str.lower, str.title])
        found.append(case(chance.choice(_MANNERS).format(text)))
    return found
