"""Build hook: compile the kernels and put them in the wheel.

PELLUCID_BUILD_ISA chooses the instruction sets: host (default), all of this architecture, or names as in
`pellucid.kernels.build`; `arm64` on another machine cross-compiles a wheel.
"""

import os
import sys
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


class KernelBuildHook(BuildHookInterface):
    """Kernels are called through ctypes, so one wheel serves every Python on its platform."""

    def initialize(self, version: str, build_data: dict) -> None:
        sys.path.insert(0, str(ROOT / "src"))
        from pellucid.kernels import build

        try:
            wish = os.environ.get("PELLUCID_BUILD_ISA", "host")
            isas = build.chosen_isas(wish)
            if wish == "all":  # a wheel is for one architecture
                isas = [isa for isa in isas if build.ISAS[isa][0] == build.architecture()]
            # An editable install runs from the sources; a wheel takes what it is given and leaves the tree alone.
            out = ROOT / "src/pellucid/engine/compiled" if version == "editable" else Path(self.directory) / "kernels"
            written = build.build(isas, out, say)
            tag = build.platform_tag(isas)
        except (build.BuildError, OSError) as e:
            # One line is all a person needs; hatchling would print a traceback of ours around it.
            say(f"pellucid: {e}")
            raise SystemExit(1) from None
        if version != "editable":
            build_data["force_include"].update({str(p): f"pellucid/engine/compiled/{p.name}" for p in written})
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"


def say(text: str) -> None:
    """Tell the person who waits. pip keeps a build's output to itself, so a terminal is told directly."""
    print(text, file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        try:
            with open("/dev/tty", "w") as terminal:
                print(text, file=terminal, flush=True)
        except OSError:
            pass  # no terminal: nobody is watching
