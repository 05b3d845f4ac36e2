"""The documentation is true: its Python runs, its commands parse, its paths exist, its excerpts are the sources'."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from pellucid.cli import app

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "pellucid"
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
RUN = [page for page in PAGES if page == "README.md" or page.startswith("docs/")]
NOT_OURS = {"mnist/", "fashion-mnist/", "cifar10/", "class/image", "train/class/image", "photos/cat/1.jpg",
            "XDG_CACHE_HOME/pellucid"}  # files and folders of the reader's

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text()


def fenced(page: str, language: str) -> list[tuple[int, str]]:
    """(line it begins on, text) of each block of code in a language."""
    content = text(page)
    return [(content.count("\n", 0, m.start(2)) + 1, m[2]) for m in FENCE.finditer(content) if m[1] == language]


def inline(page: str) -> list[str]:
    """The pieces of code within the prose."""
    return re.findall(r"`([^`]+)`", FENCE.sub("", text(page)).replace("\n", " "))


def with_python(pages: list[str]) -> list[str]:
    return [page for page in pages if fenced(page, "python")]


# Python.


def promised(code: str) -> list[str]:
    """What `print(...)  # literal` lines say they print."""
    found = []
    for _, comment in re.findall(r"^ *print\((.*)\) +# (.+)$", code, re.MULTILINE):
        try:
            ast.literal_eval(comment)
        except (ValueError, SyntaxError):
            continue  # a remark
        found.append(comment)
    return found


@pytest.mark.parametrize("page", with_python(RUN))
def test_python_runs_and_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    """The blocks of a page one after another, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    namespace = {"__name__": "__main__"}
    for line, code in fenced(page, "python"):
        exec(compile("\n" * (line - 1) + code, page, "exec", dont_inherit=True), namespace)
        printed = iter(capsys.readouterr().out.splitlines())
        for expected in promised(code):
            assert expected in printed, f"{page}, block at line {line}: {expected!r} is not printed, or not in order"


def test_pages_promise_something():
    assert {page: sum(len(promised(code)) for _, code in fenced(page, "python")) for page in with_python(RUN)} == {
        "README.md": 5, "docs/capacity.md": 2, "docs/checks.md": 3, "docs/data.md": 5, "docs/drawing.md": 3,
        "docs/evaluation.md": 4, "docs/exchange.md": 5, "docs/explain.md": 3, "docs/files.md": 3, "docs/pages.md": 2,
        "docs/report.md": 1, "docs/scaling.md": 2, "docs/sklearn.md": 4, "docs/studies.md": 3, "docs/trace.md": 10,
        "docs/training.md": 2, "docs/zoo.md": 6,
    }


@pytest.mark.parametrize("page", with_python([p for p in PAGES if p not in RUN]))
def test_excerpts_stand_in_the_sources(page):
    """Python on other pages is quoted from the files they mention."""
    sources = [(ROOT / name).read_text() for name in inline(page) if name.endswith(".py") and (ROOT / name).is_file()]
    for line, code in fenced(page, "python"):
        assert any("\n" + code in source for source in sources), f"{page}, line {line}: not in a file the page mentions"


# Commands.


def commands(page: str) -> list[list[str]]:
    """Each command of the shell blocks, and those within the prose, as words."""
    lines = [line for _, block in fenced(page, "sh") for line in block.splitlines()]
    lines += [code for code in inline(page) if code.split()[0] in ("pellucid", "python", "pytest", "ruff", "pip")]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while "&&" in words:
            cut = words.index("&&")
            found.append(words[:cut])
            words = words[cut + 1:]
        found.append(words)
    return [words for words in found if words]


def parse(arguments: list[str]) -> None:
    """Raises a usage error unless the command line takes these arguments. Nothing is run."""
    command, name = typer.main.get_command(app), ""
    while arguments and hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    if not name:
        return
    assert not hasattr(command, "commands"), f"{name} alone does nothing"
    try:
        command.make_context(name, arguments)
    except typer.Exit:
        pass  # --help


PELLUCID = [(page, words) for page in PAGES for words in commands(page) if words[0] == "pellucid"]


@pytest.mark.parametrize(("page", "words"), PELLUCID, ids=[f"{p}: {shlex.join(w)}" for p, w in PELLUCID])
def test_commands_parse(page, words):
    parse(words[1:])


@pytest.mark.parametrize("wrong", ["train digits --epoch 3", "train --batch-size many", "evaluate one", "summary a b",
                                   "data check", "data check a b"])
def test_wrong_commands_do_not_parse(wrong):
    with pytest.raises(Exception) as refused:  # typer brings a click of its own, so the type depends on its version
        parse(wrong.split())
    assert refused.value.exit_code == 2
    with pytest.raises(AssertionError, match="no command 'fly'"):
        parse(["fly"])
    with pytest.raises(AssertionError, match="no command 'fly'"):
        parse(["data", "fly"])
    with pytest.raises(Exception) as refused:
        parse("data labels".split())
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("page", PAGES)
def test_programs_exist(page):
    """What `python`, `pytest` and paths at a line's start name."""
    for words in commands(page):
        if words[:2] == ["python", "-m"]:
            name = words[2].removeprefix("pellucid.").replace(".", "/")
            assert (PACKAGE / f"{name}.py").is_file() or importlib.util.find_spec(words[2]), words
        elif words[0] in ("python", "pytest"):
            paths = [w for w in words[1:] if w.endswith(".py")]
            assert all((ROOT / path).is_file() for path in paths), words
        elif "/" in words[0]:
            assert (ROOT / words[0]).stat().st_mode & 0o111, words


def test_the_continuous_check_runs_what_the_readme_says():
    lines = [line.strip() for line in text(".ci/run").splitlines()]
    section = text("README.md").partition("\n## Tests\n")[2]
    first = next(block for block in FENCE.findall(section))[1].strip()
    assert "pytest" in first
    assert all(part in lines for part in first.split(" && "))


# Paths.


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    """Links between files, and what looks like a path within the prose: from the root, or from src/pellucid."""
    for link in re.findall(r"\]\(([^)#\s]+)", text(page)):
        if "://" not in link:
            assert (ROOT / page).parent.joinpath(link).exists(), link
    for name in inline(page):
        looks_like_one = re.fullmatch(r"\.?[\w-]+(\.\w+)*(/[\w.-]+)*/?", name) and (
            "/" in name or name.endswith((".py", ".md", ".toml")))
        if looks_like_one and name not in NOT_OURS:
            assert (ROOT / name).exists() or (PACKAGE / name).exists(), name


# The order of the house.


def rows() -> dict[str, int]:
    """The row of each part of the package in the README's table."""
    section = text("README.md").partition("\n## Where things are\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name.removesuffix(".py").strip("/"): row for row, cell in enumerate(cells)
            for name in re.findall(r"`([^`]+)`", cell)}


def imported(path: Path) -> set[str]:
    """Parts of the package that a file imports, those for type checkers left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    parts = ("pellucid", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("pellucid")):
            base = parts[:-node.level] if node.level else ()
            target = (*base, *(node.module or "").split(".")) if node.module else base
            found |= {target[1]} if len(target) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pellucid.")}
    return {name for name in found if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}


def test_imports_point_downwards():
    row = rows()
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert parts - {"__init__", "__main__", "kernels"} == set(row), "the table names every part once"
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if own in row:
            upwards = {name for name in imported(path) if row.get(name, -1) < row[own]}
            assert not upwards, f"{path.relative_to(ROOT)} imports {', '.join(sorted(upwards))} from above it"
    assert imported(PACKAGE / "model.py") >= {"engine", "modelfile", "network", "preprocessing"}
