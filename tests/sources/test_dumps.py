import gzip
import io
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pathclip.errors import DataError
from pathclip.sources import compressed, dumps
from pathclip.sources.compressed import plain_name
from pathclip.sources.dumps import find_dumps, parse_json, read_json, read_lines
from pathclip.sources.fields import a_url, parse_time, safe_name, well_formed

LINES = b"".join(b'{"n": %d}\n' % number for number in range(20_000))


def write(folder: Path, content: bytes | str, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def zstd(content: bytes, window: int = 20) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(content) + stream.flush()


def numbers(path: Path) -> tuple[list[int], list[str]]:
    """The values of {"n": value} in a file, and what was wrong."""
    found = list(read_json(path))
    return [value["n"] for _, value, wrong in found if not wrong], [wrong for *_, wrong in found if wrong]


def test_folders_are_searched_by_suffix_and_by_pattern_with_and_without_compression(tmp_path):
    for name in (
        "b.JSONL",
        "a.jsonl.gz",
        "c.json.zst",
        "tweets.js",
        "tweets-part12.js",
        "follower.js",
        "x.txt",
    ):
        write(tmp_path, "", name)
    found = find_dumps(tmp_path, (".jsonl", ".json", "tweets.js", "tweets-part*.js"))
    assert [file.name for file in found] == [
        "a.jsonl.gz",
        "b.JSONL",
        "c.json.zst",
        "tweets-part12.js",
        "tweets.js",
    ]


def test_a_folder_without_dump_tells_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"looked for \.jsonl, also with \.gz or \.zst"):
        find_dumps(tmp_path, (".jsonl",))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "A.JSONL.ZST"])
def test_plain_gzip_and_zstandard_give_the_same_lines(tmp_path, name):
    pack = {"z": zstd, "t": zstd, "T": zstd}.get(name[-1], bytes)
    content = gzip.compress(LINES) if name.endswith("gz") else pack(LINES)
    assert numbers(write(tmp_path, content, name)) == (list(range(20_000)), [])
    assert plain_name(tmp_path / name) == "a.jsonl"


@pytest.mark.parametrize(("pack", "name"), [(zstd, "a.jsonl.zst"), (gzip.compress, "a.jsonl.gz")])
def test_several_frames_are_read_one_after_another(tmp_path, pack, name):
    found, wrong = numbers(write(tmp_path, pack(LINES) + pack(b"") + pack(LINES), name))
    assert (len(found), wrong) == (40_000, [])


@pytest.mark.parametrize(("pack", "name"), [(zstd, "a.jsonl.zst"), (gzip.compress, "a.jsonl.gz")])
def test_a_stream_that_breaks_off_gives_what_it_holds_and_counts_as_malformed(tmp_path, pack, name):
    content = pack(b"".join(b'{"n": %d}\n' % number for number in range(100_000)))  # several blocks
    found, wrong = numbers(write(tmp_path, content[: len(content) // 2], name))
    assert 10_000 < len(found) < 90_000 and found == list(range(len(found)))
    assert len(wrong) == 1 and "compressed" in wrong[0]


def test_a_zstandard_window_larger_than_the_bound_is_refused(tmp_path, monkeypatch):
    # Only content larger than the window makes the encoder keep so large a one.
    assert len(numbers(write(tmp_path, zstd(LINES * 8, window=20), "a.jsonl.zst"))[0]) == 160_000
    monkeypatch.setattr(compressed, "MAX_WINDOW_BYTES", 1 << 19)
    found, wrong = numbers(write(tmp_path, zstd(LINES * 8, window=20), "b.jsonl.zst"))
    assert (found, len(wrong)) == ([], 1)


def test_what_is_no_zstandard_counts_as_malformed(tmp_path):
    assert numbers(write(tmp_path, LINES, "a.jsonl.zst"))[0] == []
    assert len(numbers(tmp_path / "a.jsonl.zst")[1]) == 1


def test_a_bomb_is_read_in_small_parts(tmp_path):
    bomb = zstd(bytes(1 << 28))
    largest = 0
    stream = compressed._ZstdStream(write(tmp_path, bomb, "a.zst"))
    buffer = bytearray(1 << 20)
    while count := stream.readinto(buffer):
        largest = max(largest, count + len(stream._found))
    stream.close()
    assert len(bomb) < 1 << 14 and largest <= 33 << 20


def test_a_line_too_long_is_counted_and_the_rest_read(tmp_path, monkeypatch):
    monkeypatch.setattr(dumps, "MAX_LINE_BYTES", 40)
    path = write(tmp_path, '{"n": 1}\n{"n": "' + "x" * 100 + '"}\n{"n": 3}\n')
    assert [(number, wrong != "") for number, _, wrong in read_json(path)] == [
        (1, False),
        (2, True),
        (3, False),
    ]


def test_lines_are_numbered_from_one_and_blank_ones_counted(tmp_path):
    assert [n for n, _ in read_lines(write(tmp_path, "a\n\n \r\nb"))] == [1, 4]


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1}\n{"n": 2}\n',
        '[{"n": 1}, {"n": 2}]',
        '[\n{"n":\n 1},\n{"n": 2}\n]\n',
        '{\n"n": 1}\n{\n"n": 2}',
        'window.YTD.tweets.part0 = [ {\n"n": 1 }, { "n": 2 }\n];',
        '\ufeff[{"n": 1},\n{"n": 2}]',
        '[{"n": 1}]\n[{"n": 2}]\n[]\n',
        '{"n": 1}\n\n{"n": 2}',
    ],
)
def test_lines_arrays_scripts_and_pretty_printed_objects_under_json_give_the_same_values(tmp_path, text):
    assert numbers(write(tmp_path, text, "a.json")) == ([1, 2], [])


def test_values_of_a_document_are_told_with_their_lines(tmp_path):
    path = write(tmp_path, '[\n{"n": 1},\n\n{\n"n": 2}\n]', "a.json")
    assert [number for number, *_ in read_json(path)] == [2, 4]


def test_an_array_longer_than_any_bound_is_read_and_a_longer_element_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(dumps, "MAX_DOCUMENT_CHARACTERS", 1000)
    monkeypatch.setattr(dumps, "_CHUNK", 64)
    short = ",\n".join(json.dumps({"n": number}) for number in range(500))
    assert numbers(write(tmp_path, f"[{short}]", "a.json")) == (list(range(500)), [])
    long = json.dumps({"n": "x" * 5000})
    found, wrong = numbers(write(tmp_path, f"[{short},{long},{short}]", "b.json"))
    assert found == list(range(500))
    assert len(wrong) == 1 and "longer than" in wrong[0]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_where_a_chunk_ends_does_not_matter(tmp_path, monkeypatch, size):
    monkeypatch.setattr(dumps, "_CHUNK", size)
    values = [{"n": 12345}, {"n": 'ä\U0001f52c\\n"]'}, {"n": -1.5e10}, {"n": [1, {"a": "]"}]}]
    path = write(tmp_path, " " + json.dumps(values, ensure_ascii=False, indent=1), "a.json")
    assert [value for _, value, _ in read_json(path)] == values
    assert [value for _, value, _ in read_json(write(tmp_path, "[123456, 7]", "b.json"))] == [123456, 7]


@pytest.mark.parametrize(
    "text", ['[{"n": 1}, {"n": 2}', '[{"n": 1}, {"n', '[{"n": 1} {"n": 2}]', '[{"n": 1}, nope]']
)
def test_a_document_that_breaks_off_gives_what_it_holds_and_counts_as_malformed(tmp_path, text):
    found, wrong = numbers(write(tmp_path, text, "a.json"))
    assert found[0] == 1 and len(wrong) == 1


def test_lines_under_the_name_json_survive_a_broken_first_line(tmp_path):
    found, wrong = numbers(write(tmp_path, '{"n": 0\n{"n": 1}\n{"n": 2}\n', "a.json"))
    assert (found, len(wrong)) == ([1, 2], 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "longer than"),
        (b"[1, 2", "not JSON: Expecting ',' delimiter at column"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "digits"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_a_few_words(line, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(line)


def test_a_document_nested_too_deeply_is_malformed(tmp_path):
    assert numbers(write(tmp_path, "[" + "[" * 100_000, "a.json"))[1] == [
        "nested too deeply; the rest of the file is not read"
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.js", "a.jsonl.gz", "a.json.zst"])
@given(content=st.binary(max_size=60) | st.text(alphabet='[]{}":,1 \n\\nau=.', max_size=60).map(str.encode))
def test_no_bytes_crash_the_reader(tmp_path_factory, name, content):
    path = write(tmp_path_factory.mktemp("fuzz"), content, name)
    for number, _, wrong in read_json(path):
        assert number >= 1 and isinstance(wrong, str)


@pytest.mark.parametrize("name", ["3_1576994475507077121", "bafkreihltcnuuyqp2jm24a", "a.b-c_d"])
def test_safe_names_keep_what_is_safe(name):
    assert safe_name(name) == name


@given(st.text())
def test_safe_names_leave_no_folder_and_stay_apart(name):
    safe = safe_name(name)
    assert safe and not safe.startswith(".") and len(safe) <= 200
    assert not {"/", "\\", "\0"} & set(safe)
    assert safe_name(name + "/") != safe


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        ("https://pbs.twimg.com/media/a.jpg?name=large", True),
        ("http://localhost:8080/a", True),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("http://[::1/a", False),
        ("https://x.org/a b", False),
        ("https://x.org/" + "a" * 5000, False),
        (7, False),
    ],
)
def test_only_addresses_of_the_web_are_addresses(url, holds):
    assert (a_url({"u": url}, "u") == url) is holds


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2021-05-06T10:00:00.000Z", "2021-05-06T10:00:00+00:00"),
        ("2021-05-06T10:00:00+02:00", "2021-05-06T08:00:00+00:00"),
        ("2021-05-06", "2021-05-06T00:00:00+00:00"),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        (5, None),
    ],
)
def test_times_are_read_in_utc(value, moment):
    found = parse_time(value)
    assert (found.isoformat() if found else None) == moment


def test_lone_surrogates_are_replaced_and_pairs_joined():
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("\ud83d\udd2c") == "\U0001f52c"


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        list(read_lines(tmp_path))


def test_the_stream_reader_is_closed_with_its_file(tmp_path):
    stream = compressed.open_dump_file(write(tmp_path, zstd(b"a\n"), "a.zst"))
    assert isinstance(stream, io.BufferedReader) and stream.read() == b"a\n"
    stream.close()
    assert stream.raw._file.closed
