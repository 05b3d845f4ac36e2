"""Ctrl-C as a request: the loop finishes its step, saves, and leaves."""

from __future__ import annotations

import signal
import threading


class Interruption:
    """A context in which the first Ctrl-C sets `requested` and a second one raises KeyboardInterrupt.

    Signals reach the main thread only; in another thread, or where Ctrl-C is ignored (nohup), nothing changes.
    """

    def __init__(self):
        self.requested = False
        self._before = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (signal.SIG_IGN, None):
                self._before = before
                signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *error) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _request(self, number, frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
