"""The batches of an epoch, each made when it is needed, or some ahead of time by threads while a GPU computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from ..data.split import Part

Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def batches(
    train: Part, change: Change, order: Iterable[np.ndarray], ahead: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each array of numbers in `order` those images, changed, and their labels.

    `ahead` threads make as many batches while others are used; what they make does not depend on them. Close the
    generator where it is left early.
    """
    def made(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return change(train.images[chosen], chosen), train.labels[chosen]

    if not ahead:
        yield from map(made, order)
        return
    rest, waiting = iter(order), deque[Future]()
    pool = ThreadPoolExecutor(ahead, "batches")
    try:
        waiting.extend(pool.submit(made, chosen) for chosen in islice(rest, ahead))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(made, chosen) for chosen in islice(rest, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
