"""Compile every kernel ahead of time and link one shared library an instruction set.

    python -m pellucid.kernels.build [--isa host|all|baseline,avx2,...] [--out FOLDER]

Objects are cached by the content that made them: the sources of this package, Halide's version, the target.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from .. import processors
from ..geometry import BLOCK, MOST_ROUTED, POINTS, TILES_TOGETHER, UPDATE

HERE = Path(__file__).parent
NO_KERNELS = "__init__", "build", "machine", "pointwise", "transforms"  # files without any
TOPICS = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NO_KERNELS)

# name: (Halide's architecture, its features, float32 lanes, vector registers). Best last.
ISAS = {
    "arm64": ("arm-64", [], 4, 32),
    "baseline": ("x86-64", ["sse41"], 4, 16),
    "avx2": ("x86-64", ["sse41", "avx", "f16c", "fma", "avx2"], 8, 16),
    "avx512": ("x86-64", ["sse41", "avx", "f16c", "fma", "avx2", "avx512", "avx512_skylake"], 16, 32),
}
SYSTEMS = {"Linux": "linux", "Darwin": "osx"}
FEATURE_NAMES = {"sse41": "SSE41", "avx": "AVX", "f16c": "F16C", "fma": "FMA", "avx2": "AVX2", "avx512": "AVX512",
                 "avx512_skylake": "AVX512_Skylake"}


class BuildError(Exception):
    """What stops a build, in one line that says what to do."""


def architecture() -> str:
    machine = platform.machine().lower()
    return "arm-64" if machine in ("arm64", "aarch64") else "x86-64" if machine in ("x86_64", "amd64") else machine


def host_isa() -> str:
    """The best instruction set of this machine. Raises BuildError where there are no kernels for it."""
    import halide as hl

    host = hl.get_host_target()
    for name in reversed(ISAS):
        arch, features, _, _ = ISAS[name]
        wanted = [getattr(hl.TargetFeature, FEATURE_NAMES[f]) for f in features]
        if arch == architecture() and all(map(host.has_feature, wanted)):
            return name
    raise BuildError(f"Pellucid has no kernels for a {platform.machine()} processor without SSE4.1; "
                     f"it runs on x86-64 and arm64")


def chosen_isas(text: str) -> list[str]:
    """"host", "all" or a comma list -> names, best last. Raises BuildError for an unknown one."""
    if text == "host":
        return [host_isa()]
    names = list(ISAS) if text == "all" else text.split(",")
    if unknown := [n for n in names if n not in ISAS]:
        raise BuildError(f"unknown instruction set {', '.join(unknown)}; choose host, all, or from {', '.join(ISAS)}")
    return [isa for isa in ISAS if isa in names]


def target_text(isa: str, system: str) -> str:
    arch, features, _, _ = ISAS[isa]
    return "-".join([arch, system, "no_bounds_query", *features])


def compile_topic(topic: str, isa: str, system: str, folder: str) -> tuple[str, float]:
    """Compile one file's kernels to objects in `folder`. Runs in a process of its own; returns topic and seconds."""
    import halide as hl

    from . import machine as m

    start = time.perf_counter()
    import_module(f"{__package__}.{topic}")
    _, _, lanes, registers = ISAS[isa]
    target = hl.Target(target_text(isa, system) + "-no_runtime")
    for name, (where, make) in m.KERNELS.items():
        if where == topic and (program := make(m.Machine(isa, lanes, registers))):
            hl.Pipeline(program.outputs).compile_to(
                {hl.OutputFileType.object: f"{folder}/{name}.o"}, program.arguments, name, target)
    return topic, time.perf_counter() - start


def compile_runtime(isa: str, system: str, path: str) -> None:
    """Compile Halide's run time, for any processor of the architecture: it is what asks which one this is."""
    import halide as hl

    hl.compile_standalone_runtime(path, hl.Target(f"{ISAS[isa][0]}-{system}"))


def cache_folder() -> Path:
    root = os.environ.get("PELLUCID_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pellucid")
    return Path(root) / "kernels"


def key(topic: str, isa: str, system: str) -> str:
    """What an object is made of. The files a topic builds on are hashed with it."""
    files, todo = {}, [topic]
    while todo:
        if (name := todo.pop()) not in files:
            files[name] = (HERE / f"{name}.py").read_text()
            todo += re.findall(r"^from \.(\w+) import", files[name], re.MULTILINE)
    text = "".join(files[name] for name in sorted(files))
    agreed = str((BLOCK, MOST_ROUTED, POINTS, TILES_TOGETHER, UPDATE))
    made_by = [version("halide"), target_text(isa, system), str(ISAS[isa]), agreed, text]
    return hashlib.sha256("\0".join(made_by).encode()).hexdigest()[:24]


def linker(isa: str) -> list[str]:
    """The command that links for an instruction set. Raises BuildError when there is none."""
    arch = ISAS[isa][0]
    if arch == architecture():
        variable, names = "CC", ["cc", "gcc", "clang"]
        package = "gcc (Debian: apt-get install gcc libc6-dev; macOS: xcode-select --install)"
    else:
        triple = {"arm-64": "aarch64", "x86-64": "x86-64"}[arch] + "-linux-gnu"
        names = [triple.replace("x86-64", "x86_64") + "-gcc"]
        variable, package = "PELLUCID_CROSS_CC", f"gcc-{triple} (Debian)"
    if given := os.environ.get(variable):
        names = [given]
    for name in names:
        if path := shutil.which(name.split()[0]):
            return [path, *name.split()[1:]]
    raise BuildError(f"no linker for the {isa} kernels (looked for {', '.join(names)}): install {package}, "
                     f"or name one in {variable}")


def link(isa: str, system: str, objects: list[Path], out: Path) -> None:
    flags = ["-dynamiclib"] if system == "osx" else ["-shared", "-Wl,--no-undefined"]
    libraries = ["-lpthread", "-lm"] + (["-ldl"] if system == "linux" else [])
    done = subprocess.run([*linker(isa), *flags, "-o", str(out), *map(str, sorted(objects)), *libraries],
                          capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise BuildError(f"linking the {isa} kernels failed: {reason[0]}")


def platform_tag(isas: list[str]) -> str:
    """The last part of the name of a wheel with these kernels. Raises BuildError for a mixture of architectures."""
    archs = {ISAS[isa][0] for isa in isas}
    if len(archs) != 1:
        raise BuildError(f"a wheel is for one architecture, got kernels for {', '.join(isas)}; build arm64 apart")
    if archs != {architecture()}:
        return "linux_aarch64" if archs == {"arm-64"} else "linux_x86_64"
    tag = sysconfig.get_platform().replace("universal2", platform.machine())
    return tag.replace("-", "_").replace(".", "_")


def build(isas: list[str], out: Path, say=print) -> list[Path]:
    """Build the shared libraries into `out` and return their paths, with `manifest.json` last.

    Raises BuildError for a missing linker or an unsupported system.
    """
    import halide as hl

    system = SYSTEMS.get(platform.system())
    if not system:
        raise BuildError(f"Pellucid builds on Linux and macOS, not on {platform.system()}")
    for isa in isas:
        linker(isa)  # before minutes of compiling
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    manifest, written = {}, []
    with ProcessPoolExecutor(processors.available()) as pool:
        for isa in isas:
            objects = compile_objects(pool, isa, system, say)
            library = out / f"pellucid_{isa}.{'dylib' if system == 'osx' else 'so'}"
            with tempfile.TemporaryDirectory(dir=out) as folder:
                link(isa, system, objects, Path(folder) / library.name)
                os.replace(Path(folder) / library.name, library)
            written.append(library)
            words, bits = hl.TargetFeature.FeatureEnd.value // 64 + 1, 0
            for feature in ISAS[isa][1]:
                bits |= 1 << getattr(hl.TargetFeature, FEATURE_NAMES[feature]).value
            manifest[isa] = {"file": library.name, "features": [bits >> 64 * i & 2**64 - 1 for i in range(words)],
                             "needs": ISAS[isa][1],
                             "kernels": sorted(p.stem for p in objects if p.stem != "runtime")}
    path = out / "manifest.json"
    with tempfile.TemporaryDirectory(dir=out) as folder:
        (Path(folder) / path.name).write_text(json.dumps(manifest, indent=1) + "\n")
        os.replace(Path(folder) / path.name, path)
    for old in set(out.glob("pellucid_*")) - set(written):
        old.unlink()  # of an earlier build for more instruction sets, and perhaps of older sources
    say(f"pellucid: kernels for {', '.join(isas)} ready in {time.perf_counter() - start:.0f} s")
    return [*written, path]


def compile_objects(pool, isa: str, system: str, say) -> list[Path]:
    """All objects of an instruction set, from the cache where they are there."""
    folders, waiting = [], {}
    for topic in ["runtime", *TOPICS]:
        folder = cache_folder() / (key("machine" if topic == "runtime" else topic, isa, system) + "-" + topic)
        folders.append(folder)
        if folder.is_dir():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(dir=folder.parent)
        if topic == "runtime":
            job = pool.submit(compile_runtime, isa, system, f"{work}/runtime.o")
        else:
            job = pool.submit(compile_topic, topic, isa, system, work)
        waiting[job] = (topic, folder, work)
    try:
        for number, job in enumerate(as_completed(waiting), 1):
            topic, folder, work = waiting[job]
            job.result()
            with contextlib.suppress(OSError):  # another build was first
                os.rename(work, folder)
            say(f"pellucid: compiled {topic} for {isa} ({number} of {len(waiting)})")
    except BrokenProcessPool:
        raise BuildError("compiling the kernels was ended from outside, perhaps for lack of memory") from None
    finally:
        for _, _, work in waiting.values():
            shutil.rmtree(work, ignore_errors=True)
    return [p for folder in folders for p in folder.glob("*.o")]


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="Compile Pellucid's kernels.")
    parser.add_argument("--isa", default=os.environ.get("PELLUCID_BUILD_ISA", "host"),
                        help=f"host (default), all, or a comma list of {', '.join(ISAS)}")
    parser.add_argument("--out", type=Path, default=HERE.parent / "engine" / "compiled")
    options = parser.parse_args(arguments)
    try:
        build(chosen_isas(options.isa), options.out, lambda text: print(text, file=sys.stderr, flush=True))
    except (BuildError, OSError) as e:
        print(f"pellucid: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
