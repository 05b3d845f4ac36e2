"""Keeping a run to its time: the plan that was made before the first step is revised as its pace becomes known.

A machine's speed changes while a run goes on, and a few steps before it tell it roughly. So whenever a fifth of the
time that was left has gone by, or half of the steps, the number of steps that still fit is counted anew. The schedule
of the learning rate keeps its course and goes through the rest of it faster or slower; see `schedules.Paced`.
"""

from __future__ import annotations

import time
from dataclasses import replace

from .plan import MOST_EPOCHS, MOST_STEPS, WHOLE, Pace, Plan

LOOK = 0.2  # share of the time left after which the plan is looked at again
SHARE = 0.98  # of the time left that is planned with
LEAST = 10  # steps, or epochs of one step, by which a pace is told
CHANGE = 0.01  # a share of the steps left below which a plan stays as it is


class Timekeeper:
    """How fast a run goes, and how many steps fit into its time, which ends at `ends` by `time.perf_counter`.

    `pace` is what was measured before: it holds for the ends of epochs until one was met.
    """

    def __init__(self, ends: float, pace: Pace):
        self.ends, self.pace, self._measured = ends, pace, pace
        self._validated = self._told = False  # whether an epoch has just ended, and whether that told its end's pace
        self._start()

    def _start(self) -> None:
        self._looked = self._last = time.perf_counter()
        self._steps, self._seconds = 0, 0.0  # without the last one of each epoch
        self._epochs, self._epoch_seconds = 0, 0.0  # these, with the end of the epoch

    def begin(self) -> None:
        """Say that steps go on after something else, which belongs to the end of an epoch if one came before."""
        now = time.perf_counter()
        if self._validated:
            self._epoch_seconds += now - self._last
        if self._told:
            self.pace = replace(self.pace, epoch=self.pace.epoch + now - self._last)
        self._last, self._validated, self._told = now, False, False

    def count(self, validated: bool) -> None:
        """Say that a step has ended, and whether the end of an epoch belonged to it."""
        now = time.perf_counter()
        took = now - self._last
        self._last, self._validated, self._told = now, validated, validated and self._steps > 0
        if not validated:
            self._steps, self._seconds = self._steps + 1, self._seconds + took
            return
        self._epochs, self._epoch_seconds = self._epochs + 1, self._epoch_seconds + took
        if self._told:
            self.pace = replace(self.pace, epoch=max(took - self._seconds / self._steps, 0.0))

    def due(self, left: int) -> bool:
        """Whether it is time to look at the plan again, which has so many steps left."""
        enough = max(self._steps, self._epochs) >= LEAST
        late = self._last - self._looked >= LOOK * (self.ends - self._looked)
        return enough and (late or left <= self._steps + self._epochs)

    def revised(self, plan: Plan, step: int) -> Plan:
        """The plan by the pace since the last look, `step` steps of it being done; the same one where it is near
        enough. For when it is `due`."""
        if self._steps >= LEAST:
            seconds = self._seconds / self._steps
            self.pace, slower = replace(self.pace, step=seconds), seconds / self._measured.step
        else:  # epochs of one step each: what of it is the step's cannot be told
            slower = self._epoch_seconds / self._epochs / (self._measured.step + self._measured.epoch)
            self.pace = self._measured.scaled(slower)
        # Where the machine is slower the test at the end will be, too; but it may be the steps alone that are faster
        # than they were thought to be.
        self.pace = replace(self.pace, end=self._measured.end * max(slower, 1.0))
        self._start()
        end = steps_in_time(plan, step, (self.ends - self._looked) * SHARE - self.pace.end, self.pace)
        return plan if abs(end - plan.steps) <= CHANGE * (plan.steps - step) else replace(plan, steps=end)


def steps_in_time(plan: Plan, step: int, seconds: float, pace: Pace) -> int:
    """The number of steps that a run ends at which has done `step` of them and has so many seconds left for steps and
    validations: at least one more; whole epochs where the plan has many."""
    end, rest = step, plan.epoch_steps - step % plan.epoch_steps
    if (first := rest * pace.step + pace.epoch) <= seconds:
        more, seconds = divmod(seconds - first, plan.epoch_steps * pace.step + pace.epoch)
        end, rest = step + rest + int(more) * plan.epoch_steps, plan.epoch_steps
    if plan.epochs < WHOLE or end == step:
        end += min(max(int((seconds - pace.epoch) // pace.step), 0), rest)
    return min(max(end, step + 1), MOST_EPOCHS * plan.epoch_steps, MOST_STEPS)
