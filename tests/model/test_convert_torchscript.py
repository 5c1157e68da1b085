"""OpenAI's archives give their tensors, and nothing in them is run."""

from __future__ import annotations

import pickle
import zipfile

import pytest
import torch

from pathclip.errors import ModelFolderError
from pathclip.model.convert.torchscript import is_torchscript, read_torchscript


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)
        self.gate = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T.half())

    def forward(self, x):
        return self.linear(x)


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.Sequential(Inner(), torch.nn.GELU())
        self.nothing = None
        self.sizes = [1, 2]
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.5))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("empty", torch.zeros(0, 3))

    def forward(self, x):
        return self.blocks(x) * self.logit_scale


@pytest.fixture
def archive(tmp_path):
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(Outer()), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def rewritten(archive, name, content):
    """A copy whose entry that ends in `name` has another content."""
    copy = archive.with_name("other.pt")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(copy, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, content if entry.filename.endswith(name) else old.read(entry))
    return copy


def test_the_tensors_are_those_of_torchs_own_reader(archive):
    ours, theirs = read_torchscript(archive), torch.jit.load(archive).state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value) and ours[name].dtype == value.dtype, name


def test_an_archive_is_told_from_a_file_of_torch_save(archive, tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("no archive")
    assert [is_torchscript(tmp_path / f"{one}.pt") for one in ("model", "plain", "text")] == [
        True,
        False,
        False,
    ]


def test_a_program_in_the_archive_is_not_run(archive, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    with pytest.raises(ModelFolderError, match=r"\(it names \S+exec, which is no part of a model\)"):
        read_torchscript(rewritten(archive, "/data.pkl", pickle.dumps(Evil(), 2)))
    for content in (pickle.dumps({"a": Evil()}, 2), pickle.dumps([Evil()], 4)):
        with pytest.raises(ModelFolderError, match="whose tensors cannot be taken out") as caught:
            read_torchscript(rewritten(archive, "/data.pkl", content))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("entry", "content", "match"),
    [
        ("/data.pkl", b"\x80\x02}.", "a dict where a named is due"),
        ("/data.pkl", b"", "cannot be taken out"),
        ("/data/0", b"\0" * 3, "has 3 bytes, not"),
    ],
)
def test_a_broken_archive_is_one_line_with_the_way_out(archive, entry, content, match):
    with pytest.raises(ModelFolderError, match=match) as caught:
        read_torchscript(rewritten(archive, entry, content))
    assert "safetensors" in str(caught.value) and "\n" not in str(caught.value)


def module(**attributes):
    """A module in a data.pkl; its attributes are parts of a pickle."""
    keys = {name: b"X" + len(name).to_bytes(4, "little") + name.encode() for name in attributes}
    return b"c__torch__\nM\n)\x81}(" + b"".join(keys[k] + v for k, v in attributes.items()) + b"ub"


def test_shared_children_do_not_double_the_work_at_every_level(archive):
    program = module(a=b"K\x01") + b"q\x00"
    for level in range(1, 40):
        child = b"h" + bytes([level - 1])
        program += module(a=child, b=child) + b"q" + bytes([level])
    with pytest.raises(ModelFolderError, match="more modules, or nested more deeply, than any model"):
        read_torchscript(rewritten(archive, "/data.pkl", b"\x80\x02" + program + b"."))


def test_tensors_of_one_storage_share_it(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.arange(6.0)
            self.register_buffer("first", whole[:3])
            self.register_buffer("last", whole[3:])

        def forward(self, x):
            return x * self.first + self.last

    torch.jit.save(torch.jit.script(Tied()), tmp_path / "tied.pt")
    found = read_torchscript(tmp_path / "tied.pt")
    assert found["last"].tolist() == [3, 4, 5]
    assert found["first"].untyped_storage().data_ptr() == found["last"].untyped_storage().data_ptr()


def test_a_damaged_list_of_entries_is_one_line(archive):
    content = bytearray(archive.read_bytes())
    entry = content.find(b"PK\x01\x02")
    content[entry : entry + 4] = b"PK\x09\x09"
    archive.write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"a damaged archive .*; fetch it again"):
        is_torchscript(archive)


def test_a_damaged_compressed_program_is_one_line(archive):
    other = archive.with_name("other.pt")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with zipfile.ZipFile(other) as opened:
        entry = next(one for one in opened.infolist() if one.filename.endswith("/data.pkl"))
    content = bytearray(other.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    content[start : start + 20] = b"\xff" * 20
    other.write_bytes(content)
    with pytest.raises(ModelFolderError, match="cannot be taken out"):
        read_torchscript(other)


def test_strides_beyond_the_storage_are_refused(archive):
    with zipfile.ZipFile(archive) as opened:
        name = next(one for one in opened.namelist() if one.endswith("/data.pkl"))
        program = opened.read(name)
    # The shape (4, 3) of the first weight becomes (120, 3): 'K\x04K\x03' is how a pickle writes it.
    assert program.count(b"K\x04K\x03") == 1
    with pytest.raises(ModelFolderError, match="cannot be taken out"):
        read_torchscript(rewritten(archive, "/data.pkl", program.replace(b"K\x04K\x03", b"K\x78K\x03")))
