"""Processes that decode pictures: they leave Ctrl-C to the process that started them, and end with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .dataset import DataError


def in_processes(function: Callable, tasks: list[tuple], workers: int) -> Iterator:
    """function(*task) of each task, in order. Raises DataError where a process dies."""
    # Not the standard library's: its processes run the caller's script again unless that is guarded by
    # `if __name__ == "__main__"`, or are forks of a process that has threads.
    from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    executor = ProcessPoolExecutor(workers, initializer=_begin, initargs=(os.getpid(),))
    try:
        waiting = deque()
        for task in tasks:
            with _without_interrupts():  # which a process inherits that is started now
                waiting.append(executor.submit(function, *task))
            if len(waiting) > 2 * workers:  # not all at once: results wait in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as e:
        raise DataError(f"a process that decodes pictures has died ({str(e).splitlines()[0][:120]}); "
                        "if memory ran out, set PELLUCID_THREADS to a smaller number") from None
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block ends, and reaches no process that is started within."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """What a worker does first: it leaves Ctrl-C, which reaches all processes, to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the parent was killed: nobody waits for an answer
