"""What importing Pellucid costs, and what it offers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pellucid

HEAVY = {"numpy", "scipy", "sklearn", "safetensors", "typer", "click", "rich", "PIL", "jinja2", "torch", "halide",
         "onnx", "onnxruntime"}
SOURCE = str(Path(pellucid.__file__).parents[1])


def packages(code):
    """The packages and modules that a fresh interpreter has loaded after `code`."""
    # -I: no user's start-up files; the path is given by hand.
    program = (f"import sys, json; sys.path.insert(0, {SOURCE!r}); before = set(sys.modules)\n"
               f"{code}\n"
               "print(json.dumps([*set(sys.modules) - before]))")
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_loads_nothing_heavy():
    loaded = packages("import pellucid")
    assert "pellucid" in loaded
    assert not loaded & HEAVY
    assert "numpy" in packages("import pellucid; pellucid.ops")  # what is loaded would be seen


def test_a_command_that_computes_nothing_loads_no_numbers():
    loaded = packages("import pellucid.cli")
    assert "typer" in loaded and not loaded & {"numpy", "scipy", "sklearn", "torch", "PIL", "jinja2"}


def test_the_version_and_the_names_are_known_without_loading_anything():
    assert not packages("import pellucid; pellucid.__version__, pellucid.__all__, dir(pellucid)") & HEAVY


@pytest.mark.parametrize("name", pellucid.__all__)
def test_every_public_name_resolves_alone(name):
    """In a fresh interpreter: none of them needs another to have been imported first."""
    assert "pellucid" in packages(f"import pellucid; assert pellucid.{name} is not None")


def test_public_names():
    assert pellucid.__all__ == sorted(set(pellucid.__all__))
    assert set(pellucid.__all__) <= set(dir(pellucid))
    space = {}
    exec("from pellucid import *", space)
    assert set(pellucid.__all__) <= set(space)
    for name in pellucid.__all__:
        assert space[name] is getattr(pellucid, name)
    with pytest.raises(AttributeError, match="'pellucid' has no attribute 'nothing'"):
        pellucid.nothing  # noqa: B018
