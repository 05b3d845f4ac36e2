"""Published weights by the name of their network: fetched once, checked, and kept."""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from ..data import cache
from ..files import check_writable, open_file, replacing

ADDRESS = "https://download.pytorch.org/models/"
LARGEST = 2**30  # bytes; the largest file, VGG-19's, has 575 million
TIME_OUT = 30  # seconds without an answer
CHUNK = 2**20


class Published(NamedTuple):
    """A file of torchvision's, and the pixels that it was measured with (`imagenet.preprocessing`)."""

    file: str
    resize: int = 256


# The weights that torchvision takes by default. The last part of a file's name is the beginning of its SHA-256.
PUBLISHED = {
    "alexnet": Published("alexnet-owt-7be5be79.pth"),
    "resnet18": Published("resnet18-f37072fd.pth"),
    "resnet34": Published("resnet34-b627a593.pth"),
    "resnet50": Published("resnet50-11ad3fa6.pth", 232),
    "resnet101": Published("resnet101-cd907fc2.pth", 232),
    "resnet152": Published("resnet152-f82ba261.pth", 232),
    "vgg11": Published("vgg11-8a719046.pth"),
    "vgg11_bn": Published("vgg11_bn-6002323d.pth"),
    "vgg13": Published("vgg13-19584684.pth"),
    "vgg13_bn": Published("vgg13_bn-abd245e5.pth"),
    "vgg16": Published("vgg16-397923af.pth"),
    "vgg16_bn": Published("vgg16_bn-6c64b313.pth"),
    "vgg19": Published("vgg19-dcbb9e9d.pth"),
    "vgg19_bn": Published("vgg19_bn-c79401a0.pth"),
}


def fetch(net: str, *, progress: Callable[[str, int, int], object] | None = None) -> Path:
    """The file of a network's published weights, from the cache (`PELLUCID_CACHE`) or from the network.

    It comes from torchvision's address, or from the one that `PELLUCID_WEIGHTS_URL` names. Its SHA-256 must begin
    with the eight digits in its name, also when it comes from the cache: that finds damage and mix-ups; that nobody
    else made the file is for https to see to. Nothing but a whole, checked file is ever kept. `progress` is called
    with what is done, and bytes done and in all. Raises ValueError for a network without published weights or a
    false address, and OSError, in one line, for everything else.
    """
    if net not in PUBLISHED:
        raise ValueError(f"there are no published weights for {net!r}; there are for {', '.join(PUBLISHED)}")
    name = PUBLISHED[net].file
    kept = cache.root() / "weights" / name
    if kept.exists() and _digest(kept).startswith(_digits(name)):
        return kept
    address = _address() + name
    check_writable(kept.parent)
    with replacing(kept) as temporary:
        try:
            digest = _download(address, temporary, progress)
        except (urllib.error.URLError, HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as e:
            reason = getattr(e, "reason", e)
            if isinstance(e, urllib.error.HTTPError):
                reason = f"{e.code} {reason}"
                e.close()
            raise OSError(f"cannot fetch {address}: {_line(reason)}; get the file by other means and give its path, "
                          "with --net") from None
        if not digest.startswith(_digits(name)):
            raise OSError(f"{address}: its SHA-256 begins with {digest[:8]}, expected {_digits(name)}: it was damaged "
                          "on the way, or is another file; nothing was kept, try again")
    return kept


def _address() -> str:
    """Where files are, with a slash at the end. An address that was asked for may be plain http."""
    given = os.environ.get("PELLUCID_WEIGHTS_URL")
    address = given or ADDRESS
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(f"PELLUCID_WEIGHTS_URL must be an address such as {ADDRESS}, got {address!r}")
    return address.rstrip("/") + "/"


class _SameSecurity(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to anything else."""

    def redirect_request(self, request, fp, code, msg, headers, newurl):
        if urllib.parse.urlsplit(newurl).scheme != "https" and request.type == "https":
            raise urllib.error.URLError("it leads from https to an address that is not")
        return super().redirect_request(request, fp, code, msg, headers, newurl)


def _download(address: str, target: Path, progress) -> str:
    """Write what is at an address into a file; returns its SHA-256. Raises what urllib does, and OSError."""
    digest, done = hashlib.sha256(), 0
    with urllib.request.build_opener(_SameSecurity).open(address, timeout=TIME_OUT) as answer:
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isascii() and length.isdecimal() else 0
        with open(target, "wb") as file:
            while chunk := answer.read(CHUNK):
                done += len(chunk)
                if max(size, done) > LARGEST:
                    raise urllib.error.URLError(f"it is larger than the {LARGEST:,} bytes that any of these files has")
                digest.update(chunk)
                file.write(chunk)
                if progress:
                    progress(f"fetching {address.rpartition('/')[2]}", done, size or done)
    if size and done != size:
        raise urllib.error.URLError(f"it was cut off after {done:,} of {size:,} bytes")
    return digest.hexdigest()


def _digits(name: str) -> str:
    """The beginning of a file's SHA-256, from its name."""
    return name.removesuffix(".pth").rpartition("-")[2]


def _digest(path: Path) -> str:
    with open_file(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(reason: object) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__
