"""Counts the tweets of API v2 dumps without any code of the package: what its own counts are checked against.

python scripts/count_tweets.py dump.jsonl
python scripts/count_tweets.py folder/ --json

Per file: distinct tweets that were collected themselves, not only referred to (all versions of an edited
tweet are one), how many of them are retweets, how many were edited, and their media: the distinct keys
attached to each, summed. Of an edited tweet the version with the most media counts, wherever it stands.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

COLUMNS = ("tweets", "retweets", "edited", "media")


def count(file: Path) -> dict[str, int]:
    """The counts of one file of JSON lines."""
    collected: set[int] = set()
    retweets: set[int] = set()
    edited: set[int] = set()
    media: dict[int, int] = {}
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        for line in lines:
            try:
                page = json.loads(line)
            except ValueError:
                continue  # a line that breaks off
            if not isinstance(page, dict):
                continue
            data = page.get("data", page)
            own = data if isinstance(data, list) else [data]
            others = page.get("includes", {}).get("tweets", []) if "data" in page else []
            others = others + [inner for tweet in own for inner in tweet.get("referenced_tweets", [])]
            for tweet in own + others:
                if "text" not in tweet:
                    continue
                versions = {int(tweet["id"]), *map(int, tweet.get("edit_history_tweet_ids", []))}
                first = min(versions)
                keys = set(tweet.get("attachments", {}).get("media_keys", []))
                media[first] = max(media.get(first, 0), len(keys))
                if len(versions) > 1:
                    edited.add(first)
            for tweet in own:
                if "text" in tweet:
                    first = min(map(int, [tweet["id"], *tweet.get("edit_history_tweet_ids", [])]))
                    collected.add(first)
                    kinds = [reference["type"] for reference in tweet.get("referenced_tweets", [])]
                    if "retweeted" in kinds:
                        retweets.add(first)
    found = (len(collected), len(retweets), len(edited & collected), sum(media[one] for one in collected))
    return dict(zip(COLUMNS, found, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, help="a .jsonl or .jsonl.gz, or a folder of them")
    parser.add_argument("--json", action="store_true", help="print {file: counts}")
    options = parser.parse_args()
    files = [options.path]
    if options.path.is_dir():
        files = sorted(
            file for file in options.path.rglob("*") if file.name.endswith((".jsonl", ".jsonl.gz"))
        )
    elif not options.path.is_file():
        parser.error(f"{options.path}: no such file or folder")
    counts = {
        str(file.relative_to(options.path)) if file != options.path else file.name: count(file)
        for file in files
    }
    if options.json:
        print(json.dumps(counts, indent=1))
        return
    width = max(map(len, counts), default=0)
    print(" " * width, *(f"{name:>9}" for name in COLUMNS))
    for name, row in counts.items():
        print(f"{name:<{width}}", *(f"{row[column]:>9}" for column in COLUMNS))


if __name__ == "__main__":
    main()
