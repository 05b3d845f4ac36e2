"""Model files: what is written reads back, and whatever else is read is refused."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import modelfile
from pellucid.modelfile import ModelFileError, parse_header, parse_json, read, read_header, write

METADATA = {"pellucid": "1", "network": '{"nodes": []}', "classes": '["zéro", "one\\n"]'}


def tensors():
    rng = np.random.default_rng(5)
    return {
        "conv1.weight": rng.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "conv1.bias": rng.standard_normal(4).astype(np.float32),
        "step": np.array(2**40 + 1, np.int64),
        "mask": np.array([True, False, True]),
        "empty": np.zeros((0, 3), np.float32),
        "state": rng.integers(0, 256, 7, np.uint8),
    }


def raw_file(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(start, stop, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "m.safetensors"
    write(path, tensors(), METADATA)
    return path


def test_round_trip(good):
    found, metadata = read(good)
    assert metadata == METADATA
    assert_same(found, tensors())
    found["conv1.bias"][0] = 1  # arrays are the caller's own
    assert os.listdir(good.parent) == [good.name]


def test_the_library_reads_what_is_written(good):
    assert_same(safetensors.numpy.load_file(good), tensors())


def test_what_the_library_writes_is_read(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file(tensors(), path, metadata={"format": "np"})
    found, metadata = read(path)
    assert metadata == {"format": "np"}
    assert_same(found, tensors())


def test_equal_contents_are_equal_files(good, tmp_path):
    first = good.read_bytes()
    for _ in range(8):  # the library's own order of metadata is random
        write(good, dict(reversed(tensors().items())), dict(reversed(METADATA.items())))
        assert good.read_bytes() == first


def test_arrays_in_any_layout(tmp_path):
    path = tmp_path / "m.safetensors"
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write(path, {"f": x.T, "big": x.astype(">f4"), "step": x[:, ::2]}, {})
    found, _ = read(path)
    for name, array in {"f": x.T, "big": x, "step": x[:, ::2]}.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("bad, message", [
    ({"a": np.array([None])}, "type object"),
    ({"a": np.array(["text"])}, "a model file holds"),
    ({"a": np.zeros(2, np.complex64)}, "complex64"),
    ({"__metadata__": np.zeros(2)}, "cannot be the name"),
    ({"\ud800": np.zeros(2)}, "cannot be the name"),
])
def test_tensors_that_cannot_be_written(good, bad, message):
    before = good.read_bytes()
    with pytest.raises(ModelFileError, match=message):
        write(good, bad, {})
    assert good.read_bytes() == before


@pytest.mark.parametrize("bad", [{"a": 3}, {"a": "\ud800"}, {"checksum": "x"}])
def test_metadata_that_cannot_be_written(good, bad):
    with pytest.raises(ModelFileError, match="metadata"):
        write(good, {}, bad)


def test_a_header_too_large_to_read_is_not_written(good, monkeypatch):
    before = good.read_bytes()
    monkeypatch.setattr(modelfile, "MAX_HEADER", 1000)
    with pytest.raises(ModelFileError, match="larger than the 1,000 allowed") as e:
        write(good, {}, {"record": "x" * 2000})
    assert str(e.value).startswith(f"{good}: ")
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


# What is expected of the tensors.

SHAPES = {"b": (3,), "w": (2, 3), "n": ("int64", ())}


@pytest.mark.parametrize("change, message", [
    ({"w": (3, 2)}, r"tensor 'w' is float32 \(2, 3\), expected float32 \(3, 2\)"),
    ({"w": ("float64", (2, 3))}, r"tensor 'w' is float32 \(2, 3\), expected float64 \(2, 3\)"),
    ({"v": (1,)}, r"tensor 'v' is missing; expected float32 \(1,\)"),
    ({"b": None}, r"tensor 'b' \(float32 \(3,\)\) is not expected"),
    ({"n": ()}, r"tensor 'n' is int64 \(\), expected float32 \(\)"),
])
def test_other_tensors_than_expected(tmp_path, monkeypatch, change, message):
    path = tmp_path / "m.safetensors"
    arrays = {"w": np.ones((2, 3), np.float32), "b": np.arange(3, dtype=np.float32), "n": np.array(7)}
    write(path, arrays, {})
    assert list(read(path, SHAPES)[0]) == ["b", "w", "n"]
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("allocated before everything was checked"))
    with pytest.raises(ModelFileError, match=message) as e:
        read(path, {k: v for k, v in (SHAPES | change).items() if v is not None})
    assert str(e.value).startswith(f"{path}: ")


# Files that lie.

@pytest.mark.parametrize("content, message", [
    (b"", "has 0 bytes"),
    (b"\x02\0\0", "has 3 bytes"),
    (raw_file(b"{}", length=3), "truncated"),
    (raw_file(b"{}", length=2**64 - 1), "truncated"),
    (b"PK\x03\x04" + bytes(40), "not a .safetensors"),
    (raw_file(b""), "begin with"),
    (raw_file(b" {}"), "begin with"),
    (raw_file(b"[]"), "begin with"),
    (raw_file(b"{\xff}"), "UTF-8"),
    (raw_file(b'{"a"'), "not valid JSON"),
    (raw_file(b"{} {}"), "not valid JSON"),
    (raw_file(b'{"a": ' + b"[" * 100_000), "nested too deeply"),
    (raw_file(b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}"), "nested deeper"),
    (raw_file(b'{"a": 1' + b"0" * 5000 + b"}"), "not valid JSON"),
    (raw_file(b'{"a": NaN}'), "NaN"),
    (raw_file(b'{"a": 1e999}'), "too large"),
    (raw_file(b'{"a": {}, "a": {}}'), "'a' stands twice"),
    (raw_file(b'{"__metadata__": {"k": "1", "k": "2"}}'), "'k' stands twice"),
    (raw_file(b'{"__metadata__": {}, "__metadata__": {}}'), "stands twice"),
    (raw_file({"__metadata__": {"k": 1}}), "object of texts"),
    (raw_file({"__metadata__": ["k"]}), "object of texts"),
    (raw_file({"__metadata__": None}), "object of texts"),
    (raw_file({"__metadata__": {"k": "\ud800"}}), "not valid Unicode"),
    (raw_file({"\udfff": entry(0, 0)}), "not valid Unicode"),
    (raw_file({"__metadata__": {"pellucid": "1"}}), "must have a 'checksum'"),
    (raw_file({"a": entry(0, 4)}, b"1234", length=2), "not valid JSON"),
    (raw_file({"a": entry(0, 4)}, b"123"), "truncated"),
    (raw_file({"a": entry(0, 4)}, b"12345"), "must end together"),
    (raw_file({}, b"1"), "must end together"),
    (raw_file({"a": entry(0, 2), "b": entry(1, 4)}, b"1234"), "overlaps tensor 'a'"),
    (raw_file({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"), "overlaps tensor 'a'"),
    (raw_file({"a": entry(0, 1), "b": entry(2, 4)}, b"1234"), "hole after tensor 'a'"),
    (raw_file({"a": entry(1, 4)}, b"1234"), "hole after the header"),
    (raw_file({"a": entry(0, 1), "e": entry(3, 3), "b": entry(1, 4)}, b"1234"), "overlaps|hole"),
    (raw_file({"a": entry(3, 1, [2])}, b"1234"), "must rise"),
    (raw_file({"a": entry(-1, 3)}, b"1234"), "must rise"),
    (raw_file({"a": entry(0, 2**70, [2**70])}, b"1234"), "must rise"),
    (raw_file({"a": entry(0, 4, [2])}, b"1234"), "takes 2 bytes"),
    (raw_file({"a": entry(0, 4, [2], "F32")}, b"1234"), "takes 8 bytes"),
    (raw_file({"a": entry(0, 4, [-2, -2])}, b"1234"), "at least 0"),
    (raw_file({"a": entry(0, 4, [4.0])}, b"1234"), "at least 0"),
    (raw_file({"a": entry(0, 1, [True])}, b"1"), "at least 0"),
    (raw_file({"a": entry(0, 4, "4")}, b"1234"), "at least 0"),
    (raw_file({"a": entry(0, 4, [2**32, 2**32])}, b"1234"), "too large"),
    (raw_file({"a": entry(0, 0, [0, 2**40, 2**40])}), "too large"),
    (raw_file({"a": entry(0, 1, [1] * 33)}, b"1"), "33 dimensions"),
    (raw_file({"a": entry(0, 4, dtype="F8_E4M3")}, b"1234"), "unknown dtype 'F8_E4M3'"),
    (raw_file({"a": entry(0, 4, dtype=["U8"])}, b"1234"), "unknown dtype"),
    (raw_file({"a": entry(0, 4) | {"data_offsets": [0, 4, 4]}}, b"1234"), "two integers"),
    (raw_file({"a": entry(0, 4) | {"data_offsets": [False, 4]}}, b"1234"), "two integers"),
    (raw_file({"a": entry(0, 4) | {"extra": 1}}, b"1234"), "nothing else"),
    (raw_file({"a": {"dtype": "U8", "shape": [4]}}, b"1234"), "nothing else"),
    (raw_file({"a": 7}, b"1234"), "nothing else"),
    (raw_file({"a": entry(0, 1, dtype="BOOL")}, b"\2"), "truth values holds the byte 2"),
])
def test_files_that_lie(tmp_path, content, message):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as e:
        read(path)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value) and len(str(e.value)) < 600


def test_a_header_length_above_the_limit(tmp_path):
    path = tmp_path / "large.safetensors"
    with open(path, "wb") as file:
        file.write((2**40).to_bytes(8, "little"))
        file.truncate(2**40 + 8)  # takes no room on the disk
    with pytest.raises(ModelFileError, match="larger than the"):
        read(path)


def test_every_truncation_is_refused(good):
    content = good.read_bytes()
    for size in range(len(content)):
        good.write_bytes(content[:size])
        with pytest.raises(ModelFileError):
            read(good)
    good.write_bytes(content + b"\0")
    with pytest.raises(ModelFileError, match="must end together"):
        read(good)


def test_every_flipped_bit_is_noticed(good):
    content = bytearray(good.read_bytes())
    for place in range(len(content)):
        bit = 1 << place % 8
        content[place] ^= bit
        good.write_bytes(content)
        content[place] ^= bit
        _equal_or_refused(good)


def _equal_or_refused(path):
    """Reading gives what was written or is refused; without its mark it is no Pellucid model and refused later."""
    try:
        found, metadata = read(path)
    except ModelFileError as e:
        assert str(e).startswith(f"{path}: ") and "\n" not in str(e)
        return
    if "pellucid" in metadata:
        assert metadata == METADATA
        assert_same(found, tensors())


EDIT = st.tuples(st.sampled_from(["set", "insert", "delete", "copy"]), st.integers(0, 2**16), st.integers(0, 2**16),
                 st.binary(min_size=1, max_size=12) | st.sampled_from([b"[", b"{", b'"', b"9", b"-", b",", b"0e9"]))


@settings(max_examples=400, deadline=None)
@given(edits=st.lists(EDIT, min_size=1, max_size=4), mend=st.booleans())
def test_mutated_files(edits, mend):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        write(path, tensors(), METADATA)
        content = path.read_bytes()
        size = 8 + int.from_bytes(content[:8], "little")
        header, data = bytearray(content[8:size]), content[size:]
        body = header if mend else bytearray(content)  # with `mend` the header's length stays right, to get further
        for kind, a, b, piece in edits:
            a, b = a % (len(body) + 1), b % (len(body) + 1)
            if kind == "set":
                body[a:a + len(piece)] = piece
            elif kind == "insert":
                body[a:a] = piece
            elif kind == "delete":
                del body[a:a + len(piece)]
            else:
                body[a:a + 16] = body[b:b + 16]
        path.write_bytes(raw_file(bytes(body), data) if mend else bytes(body))
        _equal_or_refused(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**66) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["F32", "U8", "BOOL"]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4),
)
SMALL = st.integers(-1, 6)
ENTRY = st.fixed_dictionaries({
    "dtype": st.sampled_from(["U8", "F32", "I16"]), "shape": st.lists(SMALL, max_size=2),
    "data_offsets": st.lists(SMALL, min_size=2, max_size=2)})


@settings(max_examples=300, deadline=None)
@given(header=st.dictionaries(st.sampled_from("abc"), ENTRY, max_size=3) | st.dictionaries(st.text(max_size=2), JSON),
       size=st.integers(0, 8))
def test_any_header_is_consistent_or_refused(header, size):
    raw = json.dumps(header).encode()
    try:
        parsed = parse_header(raw, size)
    except ModelFileError:
        return
    taken = sorted((t.start, t.stop) for t in parsed.tensors.values())
    assert [stop - start for start, stop in taken] == [
        int(np.prod(t.shape, dtype=object)) * np.dtype(t.dtype).itemsize
        for t in sorted(parsed.tensors.values(), key=lambda t: (t.start, t.stop))]
    ends = [8 + len(raw), *(stop for _, stop in taken)]
    assert [start for start, _ in taken] == ends[:-1] and ends[-1] == 8 + len(raw) + size


def test_what_the_library_refuses_is_refused(tmp_path):
    """Our check is at least as strict as the library's on the same bytes."""
    for content in (raw_file({"a": entry(0, 2), "b": entry(1, 4)}, b"1234"), raw_file({"a": entry(0, 4)}, b"123"),
                    raw_file({"a": entry(0, 4)}, b"12345")):
        with pytest.raises(safetensors.SafetensorError):
            safetensors.numpy.load(content)
        path = tmp_path / "x"
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            read_header(path)


@pytest.mark.parametrize("text, message", [
    ('{"a": 1, "a": 2}', "stands twice"), ("[" * 70 + "]" * 70, "deeper"), ("Infinity", "Infinity"),
    ("-1e400", "too large"), ("", "not valid JSON"), ("[" * 10**5, "nested"), ("9" * 5000, "not valid JSON"),
])
def test_parse_json_refuses(text, message):
    with pytest.raises(ModelFileError, match=message) as e:
        parse_json(text, "m.safetensors: the network")
    assert str(e.value).startswith("m.safetensors: the network")


def test_parse_json_accepts():
    assert parse_json(' {"a": [1, 2.5, null, {"b": "c"}]} ', "x") == {"a": [1, 2.5, None, {"b": "c"}]}


# Things that are not files.

def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot read .*no such file") as e:
        read(tmp_path / "none.safetensors")
    assert "\n" not in str(e.value) and "Errno" not in str(e.value)


def test_paths_that_are_not_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for path, message in ((tmp_path / "pipe", "it is a pipe"), (tmp_path, "it is a folder"),
                          (Path(os.devnull), "it is a device"), (tmp_path / "a", "circle")):
        with pytest.raises(OSError, match=f"cannot read .*{message}"):
            read(path)  # never waits for a writer
        with pytest.raises(OSError, match=f"cannot write .*{message}"):
            write(path, tensors(), METADATA)
    with pytest.raises(OSError, match="null"):
        read("a\0b")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) and sorted(os.listdir(tmp_path)) == ["a", "b", "pipe"]


def test_a_symbolic_link_is_kept(good):
    link = good.parent / "link.safetensors"
    link.symlink_to(good.name)
    write(link, {"x": np.ones(2)}, {})
    assert link.is_symlink() and list(read(good)[0]) == ["x"] and list(read(link)[0]) == ["x"]


def test_permissions(tmp_path):
    path, plain = tmp_path / "m.safetensors", tmp_path / "plain"
    plain.touch()
    write(path, tensors(), METADATA)
    assert path.stat().st_mode == plain.stat().st_mode  # what the umask gives any new file
    path.chmod(0o640)
    write(path, tensors(), METADATA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# Writes that fail.

def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*create it first"):
        write(tmp_path / "none" / "m.safetensors", tensors(), METADATA)
    with pytest.raises(NotADirectoryError, match="a part of the path is a file"):
        (tmp_path / "file").touch()
        write(tmp_path / "file" / "m.safetensors", tensors(), METADATA)


def test_a_full_disk_in_the_library(good, monkeypatch):
    before = good.read_bytes()

    def fail(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="the disk is full") as e:
        write(good, tensors(), METADATA)
    assert e.value.errno == 28
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


def run(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, **options)


def test_a_real_limit_on_file_size(good):
    before = good.read_bytes()
    process = run("""
        import resource, sys, numpy as np
        from pellucid.modelfile import write
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            write(sys.argv[1], {"a": np.zeros(100_000, np.float32)}, {})
        except OSError as e:
            print(e)
    """, good)
    out, err = process.communicate(timeout=60)
    assert out.startswith(f"cannot write {good}: the file is larger than") and out.count("\n") == 1, err
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


def test_killed_while_writing(good):
    """kill -9 at any moment leaves one whole file, the old or the new."""
    for delay in (0.0, 0.01, 0.05):
        process = run("""
            import sys, numpy as np
            from pellucid.modelfile import write
            for i in range(10**9):
                write(sys.argv[1], {"a": np.full(2_000_000, i, np.float32)}, {"pellucid": str(i)})
                print(i, flush=True)
        """, good)
        assert process.stdout.readline() == "0\n", process.stderr.read()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found, metadata = read(good, {"a": (2_000_000,)})
        assert np.all(found["a"] == int(metadata["pellucid"]))
