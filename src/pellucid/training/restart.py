"""Runs that `torchrun` starts again with the same command, after a process or a machine was lost."""

from __future__ import annotations

import os

from .. import distributed
from ..distributed import Processes
from .run import RunFolder


def found(processes: Processes, out, command: list[str] | None, time) -> bool | None:
    """Whether this launch goes on with the run in `out`: True from its checkpoint, False from the beginning, in the
    folder that it has already made; None for a new run, as always without `torchrun`.

    It goes on where config.json has the same command. Raises ValueError for what several processes cannot do.
    """
    if not distributed.launched():
        return None
    if time is not None and processes.count > 1:
        raise ValueError(f"{processes.count} processes cannot plan their epochs for a time; give the number of epochs")
    if out is None or isinstance(out, bool):
        if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0 and out is None:
            raise ValueError("a run that may be started again needs a folder to go on from; give one with --out")
        return None
    answer = None
    with processes.agreeing():
        folder = RunFolder(out)
        if processes.main and command is not None and folder.config.is_file():
            if folder.read_config().get("command") == command:
                answer = folder.last.is_file()
    return processes.share(answer)
