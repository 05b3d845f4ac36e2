"""What the tests of data sources share: small images, IDX files, pictures, and the form that every refusal has."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from pellucid.data import DataError

IDX_TYPES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def images(n=12, size=(5, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size), np.uint8)


def labels(n=12, classes=3):
    return np.arange(n) % classes


def idx(array):
    array = np.asarray(array)
    head = bytes([0, 0, IDX_TYPES[array.dtype.name], array.ndim])
    return (head + b"".join(n.to_bytes(4, "big") for n in array.shape)
            + array.astype(array.dtype.newbyteorder(">")).tobytes())


def write_idx(folder, test=True, dot="-", gz=True, prefix="", test_name="t10k"):
    folder.mkdir(parents=True, exist_ok=True)
    parts = [("train", images(), labels())] + ([(test_name, images(6, seed=1), labels(6))] if test else [])
    for name, x, y in parts:
        for kind, ending, array in (("images", "idx3", x), ("labels", "idx1", y.astype(np.uint8))):
            data = idx(array)
            path = folder / f"{prefix}{name}-{kind}{dot}{ending}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(data, 1) if gz else data)
    return folder


def refused(call, *texts):
    with pytest.raises(DataError) as e:
        call()
    message = str(e.value)
    assert "\n" not in message and len(message) < 600
    for text in texts:
        assert text in message, message
    return message


# Pictures.


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(array, kind="PNG", **options):
    """The bytes of a file that holds an array, or one of Pillow's pictures."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tree(*paths, size=(8, 8)):
    """{path: bytes} of a small PNG each, every one with other pixels."""
    return {path: encoded(pixels(*size, 3, seed=i)) for i, path in enumerate(paths)}


def classes(*parts, count=2):
    """Paths of a data set: `count` pictures of the classes ant and bee in each of the parts ("" for none)."""
    return [f"{part}{'/' if part else ''}{name}/{i}.png" for part in parts or [""] for name in ("ant", "bee")
            for i in range(count)]


def write_folder(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
