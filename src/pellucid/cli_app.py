"""The frame of the command line: the program, how it begins and ends, and what makes a function a command of it."""

from __future__ import annotations

import functools
import os
import sys
from typing import Annotated

import typer

from . import distributed
from .cli_terminal import Unwritten, fail, flush_or_drop, one_line, say, show

OVERVIEW = """\
Pellucid: convolutional networks you can see through.

  pellucid train DATA           train a classifier on labelled images
  pellucid evaluate MODEL DATA  say how good a model is, class by class
  pellucid predict MODEL PATH   say what is in an image
  pellucid explain MODEL IMAGE  say why it says so, down to single pixels
  pellucid study MODEL DATA     measure how it works: filters, fields, shifts
  pellucid compare NET NET      train networks side by side
  pellucid capacity DATA        measure overfitting; would more images help?
  pellucid data check DATA      find what is wrong with labelled images
  pellucid data labels DATA     list images whose label is probably wrong
  pellucid summary NET          list a network's layers, sizes and costs
  pellucid export MODEL         write a model for ONNX Runtime or PyTorch
  pellucid import FILE          make a model of a network from elsewhere

Try this first; it takes seconds and needs nothing else:

  pellucid train digits

Each command explains itself, with examples: pellucid train --help
"""

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer(help="Look at data before training on them.", rich_markup_mode=None)
app.add_typer(data_app, name="data")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends with SystemExit: 0 success, 2 a wrong command line, 1 everything else."""
    if distributed.rank():  # one process speaks for all
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name the terminal cannot show is no reason to fail
    status, unwritten = 0, None
    try:
        app(args=arguments, prog_name="pellucid")
    except SystemExit as e:
        status = e.code
    except Unwritten as e:
        unwritten = e.__cause__
    except OSError as e:  # only what shows help and wrong command lines gets here
        if os.environ.get("PELLUCID_TRACEBACK"):
            raise
        status = getattr(e.__context__, "exit_code", 0)  # of a wrong command line, which it could not say
        unwritten = None if status else e
    unwritten = flush_or_drop(sys.stdout) or unwritten
    if unwritten is not None:
        status = 1
        if not isinstance(unwritten, BrokenPipeError):
            say(f"pellucid: cannot write to standard output: {unwritten.strerror or unwritten}")
    flush_or_drop(sys.stderr)
    raise SystemExit(status)


def command(function, group: typer.Typer = app, name: str | None = None):
    """Decorator: a command, by default called as its function, whose errors end it with status 1 and one line that
    says what to do."""

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        try:
            function(*args, **kwargs)
        except (typer.Exit, typer.BadParameter, Unwritten):
            raise
        except KeyboardInterrupt:
            fail("stopped by Ctrl-C")
        except Exception as e:
            if os.environ.get("PELLUCID_TRACEBACK"):
                raise
            if distributed.rank() and distributed.speaks(e):
                sys.stderr = sys.__stderr__
            fail(one_line(e))

    return group.command(name)(guarded)


def show_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        show(f"pellucid {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Convolutional networks you can see through: train, evaluate and use image classifiers on your CPU.

    Try this first: pellucid train digits
    """
    if context.invoked_subcommand is None:
        show(OVERVIEW.rstrip())
