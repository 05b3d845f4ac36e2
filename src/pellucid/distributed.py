"""Several processes that train one network together, as `torchrun` starts them: who does what, and how they agree.

They exchange numbers by `torch.distributed`: gloo between CPUs and for what is said here, NCCL between GPUs. PyTorch is
imported by `join` alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PATIENCE = timedelta(hours=6)  # that processes wait for each other: the first one may be decoding a large data set


class Lost(OSError):
    """Another process of the run has ended, or cannot be reached."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: `rank` of `count`; on its machine, `local` of `here`.

    Methods that exchange something must be called by all processes, in the same order. They raise Lost where another
    process has ended.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    here: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """This process's images of a batch: they differ by one at most, if the processes do not divide it."""
        return slice(self.rank * batch // self.count, (self.rank + 1) * batch // self.count)

    def total(self, value: float) -> float:
        """The sum over all processes, the same number in each."""
        if self.count == 1:
            return value
        import torch

        tensor = torch.tensor([value], dtype=torch.float64)
        with self.talking():
            torch.distributed.all_reduce(tensor)
        return tensor.item()

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return self.total(float(flag)) > 0

    def joined(self, rows: np.ndarray, count: int) -> np.ndarray:
        """All processes' rows, one after another, of which `part(count)` are this one's."""
        if self.count == 1:
            return rows
        import numpy as np
        import torch

        longest = -(-count // self.count)
        mine = torch.zeros((longest, *rows.shape[1:]), dtype=torch.from_numpy(rows).dtype)
        mine[:len(rows)] = torch.from_numpy(rows)
        every = [torch.empty_like(mine) for _ in range(self.count)]
        with self.talking():
            torch.distributed.all_gather(every, mine)
        parts = (Processes(rank, self.count).part(count) for rank in range(self.count))
        return np.concatenate([t[:p.stop - p.start].numpy() for t, p in zip(every, parts, strict=True)])

    def copy(self, array: np.ndarray) -> None:
        """Make an array what it is in the main process."""
        if self.count > 1:
            import numpy as np
            import torch

            tensor = torch.from_numpy(np.array(array))
            with self.talking():
                torch.distributed.broadcast(tensor, 0)
            array[...] = tensor.numpy()

    def share(self, value):
        """The main process's value: None, numbers, texts, lists and dicts of them."""
        return self._texts(json.dumps(value if self.main else None))[0] if self.count > 1 else value

    def _texts(self, text: str) -> list:
        """What each process says, in JSON."""
        import numpy as np

        data = np.frombuffer(text.encode(), np.uint8)
        lengths = self.joined(np.array([len(data)]), self.count)
        padded = np.zeros((1, lengths.max()), np.uint8)
        padded[0, :len(data)] = data
        return [json.loads(row[:n].tobytes()) for row, n in zip(self.joined(padded, self.count), lengths, strict=True)]

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """A stretch that ends for all processes alike: an error of one is raised in each."""
        if self.count == 1:
            yield
            return
        error = None
        try:
            yield
        except Exception as e:
            error = e
        said = self._texts(json.dumps(error and (str(error) or type(error).__name__)))
        if error is not None:
            raise error
        if (first := next((rank for rank, text in enumerate(said) if text is not None), None)) is not None:
            raise ValueError(f"process {first} of {self.count}: {said[first]}")

    def require_same(self, what: str, value) -> None:
        """Raise ValueError, in each process, unless a JSON value is the same in all."""
        if self.count > 1 and len({json.dumps(v, sort_keys=True) for v in self._texts(json.dumps(value))}) > 1:
            raise ValueError(f"the {self.count} processes do not have the same {what}; give all of them the same data, "
                             "the same command and the same versions of Pellucid and what it needs")

    @contextmanager
    def first_here(self) -> Iterator[None]:
        """The first process of each machine goes through a stretch before its others, which find what it has left."""
        turn = 0 if self.local == 0 else 1
        if turn:
            self.total(0)
        try:
            yield
        finally:
            if not turn:
                self.total(0)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """A stretch in which PyTorch's errors mean that another process has ended."""
        if self.count == 1:
            yield
            return
        import torch

        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as e:
            why = str(e).strip().partition("\n")[0]
            raise Lost(f"process {self.rank} of {self.count} has lost another one, which should have said why ({why}). "
                       "The run goes on from its last checkpoint with the same command, by torchrun --max-restarts "
                       "without you") from e


ALONE = Processes()


_own: list[BaseException] = []  # errors that the other processes do not meet


def only_here(error: BaseException) -> None:
    """Say that an error is this process's own, so that it must speak of it itself."""
    _own.append(error)


def speaks(error: BaseException) -> bool:
    """Whether this process is the one to tell of an error: the main one, or any of an error of its own."""
    return rank() == 0 or error in _own and not isinstance(error, Lost)


def launched() -> bool:
    """Whether `torchrun` has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def rank() -> int:
    """This process's number as `torchrun` gives it, 0 where it has not started the process."""
    return int(os.environ["RANK"]) if launched() else 0


def world() -> int:
    """How many processes `torchrun` has started."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def join() -> Processes:
    """Meet the other processes that `torchrun` has started; ALONE where it has started none."""
    if world() == 1:
        return ALONE
    import atexit

    import torch
    from torch import distributed

    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, number, count = next(distributed.rendezvous("env://", timeout=PATIENCE))
        # torchrun keeps its store when it starts processes again, and in it where the dead ones could be reached.
        store = distributed.PrefixStore(f"pellucid/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        distributed.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return Processes(rank(), world(), int(os.environ["LOCAL_RANK"]), here)
