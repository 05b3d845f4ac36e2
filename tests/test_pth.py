"""Files of torch.save, read without unpickling: tensors come back as they were, and nothing is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.exchange import pth
from pellucid.exchange.pth import PthError

LEGACY = {"_use_new_zipfile_serialization": False}
KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
         torch.uint8, torch.bool)


def numbers(t: torch.Tensor) -> np.ndarray:
    return (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy()


def same(read: dict, expected: dict) -> None:
    assert list(read) == list(expected)
    for name, t in expected.items():
        theirs = numbers(t)
        assert read[name].dtype == theirs.dtype and read[name].shape == theirs.shape and not read[name].flags.writeable
        np.testing.assert_array_equal(read[name], theirs, name)


@st.composite
def tensors(draw):
    """A tensor that owns its numbers, or a view: turned, cut, with steps, of one number, of none."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = int(np.prod(shape, initial=1))
    t = (torch.arange(count) - draw(st.integers(0, 3))).to(draw(st.sampled_from(KINDS))).reshape(shape)
    for axis in range(t.ndim):
        t = t[(slice(None),) * axis + (slice(draw(st.integers(0, 1)), None, draw(st.integers(1, 2))),)]
    return t.permute(draw(st.permutations(range(t.ndim))))


@settings(max_examples=60, deadline=None)
@given(st.lists(tensors(), max_size=4), st.booleans(), st.booleans())
def test_what_torch_saves_is_read(tmp_path_factory, drawn, legacy, ordered):
    path = tmp_path_factory.mktemp("pth") / "a.pth"
    saved = {f"layer.{i}": t for i, t in enumerate(drawn)}
    torch.save(OrderedDict(saved) if ordered else saved, path, **(LEGACY if legacy else {}))
    same(pth.read(path), saved)


@pytest.mark.parametrize("options", [{}, LEGACY, {"pickle_protocol": 4}], ids=str)
def test_state_dicts_parameters_and_checkpoints(tmp_path, options):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(2, 2, 4, 4)).sum().backward()
    optimizer.step()
    path = tmp_path / "a.pth"
    torch.save(module.state_dict(), path, **options)
    same(pth.read(path), module.state_dict())
    torch.save(dict(module.named_parameters()), path, **options)
    same(pth.read(path), dict(module.named_parameters()))
    torch.save({"epoch": 3, "best": 0.5, "arch": "x", "state_dict": module.state_dict(), "none": None, "no": False,
                "optimizer": optimizer.state_dict()}, path, **options)
    same(pth.read(path), module.state_dict())


@pytest.mark.parametrize("options", [{}, LEGACY], ids=str)
def test_tensors_that_share_numbers_share_memory(tmp_path, options):
    whole = torch.arange(10.0)
    torch.save({"a": whole, "b": whole[2:8:2], "c": whole}, tmp_path / "a.pth", **options)
    read = pth.read(tmp_path / "a.pth")
    assert np.shares_memory(read["a"], read["b"]) and read["b"].tolist() == [2, 4, 6]
    assert np.shares_memory(read["a"], read["c"])


def test_the_other_byte_order(tmp_path):
    """As a big-endian machine would write it: the same members, their numbers turned round."""
    torch.save({"a": torch.arange(5.0), "b": torch.arange(3), "c": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "a")
    width = {"a/data/0": 4, "a/data/1": 8, "a/data/2": 2}
    with zipfile.ZipFile(tmp_path / "a") as old, zipfile.ZipFile(tmp_path / "b", "w") as new:
        for name in old.namelist():
            data = b"big" if name == "a/byteorder" else old.read(name)
            if name in width:
                data = np.frombuffer(data, f"u{width[name]}").byteswap().tobytes()
            new.writestr(name, data)
    read = pth.read(tmp_path / "b")
    assert read["a"].tolist() == [0, 1, 2, 3, 4] and read["b"].tolist() == [0, 1, 2] and read["c"].tolist() == [1, 1]
    assert read["a"].dtype.isnative and read["b"].dtype == np.int64


# What is refused.


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=str)
@pytest.mark.parametrize(("make", "message"), [
    (Evil, "would call '(posix|nt) system', and nothing in a file is executed"),
    (lambda: {"a": torch.ones(2), "e": Evil()}, "would call '(posix|nt) system'"),
    (lambda: torch.nn.Linear(2, 2), "(would call|as whole modules do).*save the state_dict alone"),
    (lambda: {"a": np.ones(2)}, "would call '(_codecs|numpy)"),
    (lambda: {"a": torch.ones(2), "n": 3}, "'n' is of type int"),
    (lambda: {3: torch.ones(2)}, "'3' is of type View"), (lambda: torch.ones(2), "it holds a view, expected"),
    (lambda: [torch.ones(2)], "it holds a list, expected a state_dict"), (lambda: {(1, 2): 3}, "key of type tuple"),
    (lambda: {"a": torch.ones(2, 2).to_sparse()}, "would call 'torch"),
    (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "numbers of the type 'ComplexFloatStorage'"),
    (lambda: {"a": torch.ones(1).expand(9)}, "beyond its storage of 1 numbers"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_more_than_tensors_is_refused_and_nothing_runs(tmp_path, monkeypatch, make, message, options):
    monkeypatch.chdir(tmp_path)
    torch.save(make(), "a.pth", **options)
    with pytest.raises(PthError, match=f"^a.pth: .*{message}") as refused:
        pth.read("a.pth")
    assert "\n" not in str(refused.value) and not os.path.exists("ran")


def archive(path, pickled: bytes, **members) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", pickled)
        for name, data in members.items():
            file.writestr("a/" + name.replace("__", "/"), data)


def described(count=4, offset=0, size=(4,), stride=(1,), kind="FloatStorage", key="0") -> bytes:
    """The pickle of {"w": a tensor}, described as asked."""

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return value.id if isinstance(value, Reference) else None

    class Reference:
        id = ("storage", getattr(torch, kind), key, "cpu", count)

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Reference(), offset, size, stride, False, OrderedDict())

    file = io.BytesIO()
    Writer(file, 2).dump({"w": Tensor()})
    return file.getvalue()


def test_a_description_of_ours_is_read(tmp_path):
    archive(tmp_path / "a", described(offset=1, size=(3,)), data__0=np.arange(4, dtype="<f4").tobytes())
    assert pth.read(tmp_path / "a")["w"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("asked", "message"), [
    ({"offset": 1}, "beyond its storage of 4"), ({"size": (2**62,)}, "beyond"),
    ({"size": (2, 2**40), "stride": (1, 0)}, "beyond"),
    ({"size": (5,), "stride": (0,)}, "beyond"), ({"stride": (-1,)}, "in a way"), ({"offset": -1}, "in a way"),
    ({"size": (4.0,)}, "in a way"), ({"size": [4]}, "in a way"), ({"size": (True,)}, "in a way"),
    ({"size": (0, 2**41), "stride": (1, 1)}, "beyond"),
    ({"size": (1,) * 40, "stride": (1,) * 40}, "40 dimensions"), ({"stride": ()}, "1 dimensions and 0 strides"),
    ({"count": 2**60, "size": (2**60,)}, "has 16 bytes"), ({"count": 5}, "has 16 bytes, its 5 numbers need 20"),
    ({"count": 3, "size": (3,)}, "at most 12 are expected"), ({"count": -1}, "described in a way"),
    ({"key": "../0"}, "is missing"),
    ({"key": 7}, "in a way"), ({"kind": "QInt8Storage"}, "numbers of the type 'QInt8Storage'"),
    ({"kind": "BoolStorage", "count": 16, "size": (16,)}, "truth values must be 0 or 1"),
])
def test_tensors_that_lie_are_refused(tmp_path, asked, message):
    archive(tmp_path / "a", described(**asked), data__0=np.arange(4, dtype="<f4").tobytes())
    with pytest.raises(PthError, match=message):
        pth.read(tmp_path / "a")


DEEP = b"(" * 100_000 + b"t" * 100_000
DOUBLING = b")q\0" + b"h\0\x86q\0" * 64  # a tuple of 2^64 empty ones, which share memory


@pytest.mark.parametrize(("pickled", "message"), [
    (b"", "damaged or cut off"), (b".", "number of values"), (b"\x80\x02}", "damaged or cut off"), (b"}q\0", "cut off"),
    (b"}}.", "number of values"), (b"t.", "damaged"), (b"h\x05.", "damaged"), (b"(N(N.", "number of values"),
    (DEEP + b".", "it holds a tuple"), (b"}" + DOUBLING + b"Ns.", "key of type tuple"),
    (b"r\xff\xff\xff\xff.", "damaged"), (b"Nr\xff\xff\xff\xff.", "expected a state_dict"),
    (b"\x8c\xffa.", "cut off"),
    (b"X\xff\xff\xff\x7fa.", "cut off"), (b"(i__builtin__\neval\n.", "does INST"), (b"N)\x81.", "calls something"),
    (b"c__builtin__\neval\n)R.", "would call '__builtin__ eval'"), (b")N)R.", "calls something"),
    (b"NNb.", "changes something"),
    (b"\xff.", "cut off"), (b"ccollections\nOrderedDict\nN\x85R.", "made in a way"), (b"NQ.", "no storage"),
    (b"]KQ.", "damaged"), (b"I" + b"9" * 10_000 + b"\n.", "damaged|does INT"), (b"N0.", "does POP"),
], ids=lambda v: v[:12].hex() if isinstance(v, bytes) else "")
def test_pickles_that_are_damaged_or_hostile(tmp_path, pickled, message):
    archive(tmp_path / "a", pickled)
    start = time.monotonic()
    with pytest.raises(PthError, match=message) as refused:
        pth.read(tmp_path / "a")
    assert len(str(refused.value)) < 500 and time.monotonic() - start < 5


def test_damaged_zips(tmp_path):
    torch.save({"a": torch.arange(1000.0), "b": torch.ones(3)}, tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    at = whole.index(np.arange(1000, dtype="<f4").tobytes())
    for change, message in (
        (whole[:-10], "not a sound zip"), (whole[:at], "not a sound zip"), (b"PK\3\4" + bytes(99), "not a sound zip"),
        (whole[:at] + b"\7" + whole[at + 1:], "does not fit its checksum"), (b"", "neither a zip nor"),
        (whole[4:], "neither"),
    ):
        (tmp_path / "b").write_bytes(change)
        with pytest.raises(PthError, match=message):
            pth.read(tmp_path / "b")


@pytest.mark.parametrize(("names", "method", "message"), [
    (["x"], 0, "one NAME/data.pkl"), (["a/data.pkl", "b/data.pkl"], 0, "one NAME/data.pkl"),
    (["a/b/data.pkl"], 0, "one NAME/data.pkl"), (["a/data.pkl", "a/code/x.py"], 0, "a TorchScript program"),
    (["a/data.pkl"], zipfile.ZIP_DEFLATED, "packed or encrypted"),
])
def test_other_zips(tmp_path, names, method, message):
    with zipfile.ZipFile(tmp_path / "a", "w", method) as file:
        for name in names:
            file.writestr(name, b"N." * 50)
    with pytest.raises(PthError, match=message):
        pth.read(tmp_path / "a")


def test_a_pickle_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pth, "LONGEST_PICKLE", 100)
    torch.save({"a": torch.ones(3)}, tmp_path / "a")
    with pytest.raises(PthError, match="bytes, at most 100 are expected"):
        pth.read(tmp_path / "a")
    torch.save({"a": torch.ones(3)}, tmp_path / "a", **LEGACY)
    with pytest.raises(PthError, match="damaged or cut off"):
        pth.read(tmp_path / "a")


def test_damaged_files_of_old(tmp_path):
    torch.save({"a": torch.arange(1000.0), "b": torch.ones(3)}, tmp_path / "a", **LEGACY)
    whole = (tmp_path / "a").read_bytes()
    at = whole.index(np.arange(1000, dtype="<f4").tobytes())
    for change, message in (
        (whole[:-1], "cut off"), (whole[:at - 4], "another length"), (whole[:60], "damaged|goes on otherwise"),
        (whole[:at - 8] + struct.pack("<q", 10**12) + whole[at:], "another length"),
        (whole.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1), "goes on otherwise"),
    ):
        (tmp_path / "b").write_bytes(change)
        with pytest.raises(PthError, match=message):
            pth.read(tmp_path / "b")


@pytest.mark.parametrize("keys", [b"](" + DOUBLING + b"e.", b"]" * 100_000 + b"a" * 99_999 + b".", b"](K\0e.", b"N."],
                         ids=["doubling", "deep", "a number", "none"])
def test_keys_that_are_none(tmp_path, keys):
    machine = {"protocol_version": 1001, "little_endian": True}
    (tmp_path / "a").write_bytes(pth.LEGACY + pickle.dumps(1001, 2) + pickle.dumps(machine, 2) + described() + keys)
    start = time.monotonic()
    with pytest.raises(PthError, match="its storages are not those that its tensors are views of"):
        pth.read(tmp_path / "a")
    assert time.monotonic() - start < 5


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.integers(0, 2**32), st.integers(0, 255))
def test_a_changed_byte_gives_tensors_or_one_line(tmp_path_factory, legacy, at, value):
    path = tmp_path_factory.getbasetemp() / f"damaged{legacy}.pth"
    torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, path, **(LEGACY if legacy else {}))
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data)
    try:
        read = pth.read(path)
    except PthError as e:
        assert "\n" not in str(e)
    else:
        assert all(isinstance(v, np.ndarray) for v in read.values())


def test_what_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="cannot read"):
        pth.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        pth.read(tmp_path / "none.pth")
