"""The loop: steps, epochs, validation, and what surrounds it so that nothing good is ever lost."""

from __future__ import annotations

import contextlib
import math
import time as clock
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from .. import calibration, distributed, evaluation, views
from .. import data as datasets
from ..calibration import Calibration
from ..model import Model, load
from ..schedules import InTurn
from . import augment, choice, engines
from . import plan as planning
from .average import Average
from .batches import batches
from .interrupt import Interruption
from .progress import Progress
from .recipes import initialise
from .result import Run
from .run import RunFolder, State
from .setup import Setup
from .step import Diverged
from .timekeeper import Timekeeper

SAVE_EVERY = 1.0  # seconds between saves where epochs are shorter than that
SAVE_WITHIN = 60.0  # seconds between saves within an epoch


class Trainer:
    """One run in progress: the model that is trained, the best weights so far, and where it stands."""

    def __init__(self, setup: Setup, parts: datasets.Split, progress: Callable[[Progress], None] | None,
                 engine: engines.Native | engines.Torch):
        self.setup, self.plan, self.parts, self.engine = setup, setup.plan, parts, engine
        self.processes = engine.processes
        self.folder: RunFolder | None = None
        self.progress = progress or (lambda p: None)
        self.model = _model(setup)
        self.step = engine.begin(self.model, setup)
        self.average = Average(self.model, setup.averaging)
        self.kept = _model(setup)
        self.kept.record = {**setup.record(), **engine.to_json()}
        engine.take(self.kept)
        self.state = State()
        self.saved_at = -math.inf
        self.best_is_saved = True
        self.sound = self.between_steps = True
        self.began, self.done_before = clock.perf_counter(), 0
        self.entered = 0, 0.0, 0  # the epoch that is trained, and when and at which step it was taken up
        self.told = setup  # what config.json says
        self.timekeeper: Timekeeper | None = None

    def begin(self, values: dict[str, np.ndarray] | None) -> None:
        """Start a new run: with these weights in place of random ones, where there are some, those of other layers
        staying random; else with random ones, as `recipes.initialise` leaves them."""
        if values is None:
            initialise(self.model, self.parts.train.images, self.setup.biases)
        else:
            self.model.load_parameters({**self.model.parameters, **values})
        self.average = Average(self.model, self.setup.averaging)

    def restore(self) -> None:
        """Go on from last.safetensors and, for the best weights, best.safetensors."""
        parameters, buffers, best = self._read()
        self._follow(self.told.revised(self.state.revision))
        if not 0 <= self.state.step <= self.plan.steps:
            raise ValueError(f"{self.folder.last if self.folder else 'the run'} stands at step {self.state.step} of "
                             f"{self.plan.steps}; it belongs to another run")
        self.model.load_parameters(parameters)
        for name, values in self._averages().items():
            values[...] = buffers.pop(name)
        self.step.load_state(buffers, self.state.step)
        if self.state.stopped != self.plan.steps:  # it is a longer run now
            self.state.stopped = 0
        trained = self.state.rows[-1]["step"] % self.plan.epoch_steps if self.state.rows else 0
        if trained and self.state.step < self.plan.steps:
            # The last epoch was a short one, for lack of time; in a longer run it goes on.
            self.state.losses = self.state.rows.pop()["train_loss"] * trained
        if self.state.best is not None:
            self.kept.load_parameters(best)
            self._note_best(self.state.best)

    def _read(self) -> tuple[dict, dict, dict]:
        """What the run's folder holds: parameters, buffers and the best weights, if any; `state` and the calibration
        of the best are set. The main process reads, the others get it from there."""
        processes, mine = self.processes, self.model.parameters
        buffers, state, best = {**self.step.state(), **self._averages()}, None, None
        with processes.agreeing():
            if self.folder:
                mine, buffers, state = self.folder.read_last(mine, buffers)
                best = load(self.folder.best) if state.best is not None else None
        calibration = best.calibration.to_json() if best and best.calibration else None
        self.state = State(**processes.share(asdict(state) if state else None))
        calibration = processes.share(calibration)
        self.kept.calibration = calibration and Calibration.from_json(calibration)
        best = {} if self.state.best is None else best.parameters if best else self.kept.parameters
        read = tuple({name: np.array(v) for name, v in part.items()} for part in (mine, buffers, best))
        for part in read:
            for array in part.values():
                processes.copy(array)
        return read

    def _averages(self) -> dict[str, np.ndarray]:
        return {f"average.{name}": values for name, values in self.average.arrays().items()}

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to train."""
        return self.plan.steps in (self.state.step, self.state.stopped)

    def run(self, config: dict, on_start: Callable[[Setup, Path | None], None] | None) -> Run:
        """Train to the end of the plan, or until Ctrl-C; evaluate and save. With a `timekeeper` the plan is revised as
        the run goes on."""
        if on_start is not None:
            on_start(self.setup, self.folder and self.folder.path)
        self.began, self.done_before = clock.perf_counter(), self.state.step
        seconds_before = self.state.seconds
        with Interruption() as stop:
            try:
                if self.folder and not self.folder.last.exists():
                    # So that it can be resumed from now on, and a disk that is too small is known before any work.
                    self._save(always=True)
                    self.saved_at -= SAVE_EVERY  # the first epoch is worth a save as soon as it ends
                while not self.complete and not self._stops(stop):
                    self._epoch(stop)
                    self.state.seconds = seconds_before + clock.perf_counter() - self.began
                    self._save()
                best = self._best()
                if best is None:
                    raise Diverged(self.state.step, "network's output", self.step.lr)
                return self._finish(config, best)
            except Diverged as e:
                best = self._best()
                self._save(always=True)
                e.args = (str(e) + self._left(best),)
                raise
            except BaseException as e:
                self.sound = self.sound and self.between_steps
                self.state.seconds = seconds_before + clock.perf_counter() - self.began
                with contextlib.suppress(Exception):  # what ended the run matters more than what saving it met
                    alone = self.processes.count == 1  # for others may no longer be there to evaluate with
                    if self.folder and self.sound and alone and not isinstance(e, KeyboardInterrupt):
                        self._best()
                    self._save(always=True)
                if self.processes.count > 1:
                    distributed.only_here(e)
                raise
            finally:
                self.engine.leave(self.kept)

    def _stops(self, stop: Interruption | planning.Stopwatch) -> bool:
        """Whether training is asked to stop, in whichever process."""
        return self.processes.any(stop.requested)

    def _finish(self, config: dict, best: dict) -> Run:
        """Evaluate the best weights, once, if training is complete; save everything."""
        complete, evaluated = self.complete, None
        test = config.get("result", {}).get("test") if complete else None
        if complete and test is None:
            validation = self.parts.validation
            self.kept.calibration = calibration.fit(self.kept, validation.images, validation.labels)
            evaluated = evaluation.evaluate_part(self.kept, self.parts, "test")
            test = evaluated.summary()
            self.kept.record["test"] = test
            self.best_is_saved = False
        self._save(always=True)
        config = {**config, **self.setup.to_json()}  # with the plan it came to
        run = Run(
            model=self.kept, folder=self.folder and self.folder.path, setup=self.setup, history=self.state.rows,
            best=best, test=test, epochs=len(self.state.rows), steps=self.state.step, seconds=self.state.seconds,
            interrupted=not complete, stopped=self.state.step < self.plan.steps == self.state.stopped,
            parts=self.parts, evaluation=evaluated, config=config,
        )
        config["result"] = {"interrupted": not complete, "stopped_early": run.stopped, "steps": run.steps,
                            "seconds": run.seconds, "best": best, "test": test}
        if self.folder:
            self.folder.write_config(config)
        return run

    def _epoch(self, stop: Interruption | planning.Stopwatch) -> None:
        """Train to the end of the epoch in which `state.step` stands, and validate; or to a step after which to stop or
        to follow another plan."""
        plan, state, train = self.plan, self.state, self.parts.train
        epoch = state.step // plan.epoch_steps + 1
        first = (epoch - 1) * plan.epoch_steps
        last = first + plan.length(epoch)
        order = augment.order(self.setup.seed, epoch, len(train))
        change = self.setup.augmentation.of_epoch(self.setup.seed, epoch, len(train))
        if self.entered[0] != epoch:
            self.entered = epoch, clock.perf_counter(), state.step
        _, began, begun_at = self.entered
        if self.timekeeper:
            self.timekeeper.begin()
        chosen = (order[i * plan.batch_size:][:plan.batch_size][self.step.part]
                  for i in range(state.step - first, last - first))
        with contextlib.closing(batches(train, change, chosen, self.engine.ahead)) as made:
            for images, labels in made:
                self.between_steps = False
                loss = self.step(images, labels)
                state.step += 1
                self.average.update(state.step)
                state.losses += float(loss)
                speed = (state.step - begun_at) * plan.batch_size / (clock.perf_counter() - began)
                row, best = None, False
                if state.step == last:
                    self._require_finite()
                    with self.average.in_place():
                        row = self._validate(epoch, state.losses / (last - first), speed)
                        row["seconds"] = clock.perf_counter() - began
                        best = self._judge(row)
                    state.rows.append(row)
                    if state.step < plan.steps and 0 < self.setup.patience <= epoch - self._waits_since():
                        state.stopped = plan.steps
                mean = state.losses / (state.step - first)
                if row is not None:
                    state.losses = 0.0
                self.between_steps = True
                self.progress(self._progress(epoch, mean, speed, row, best))
                if self._stops(stop) or self._revises(row is not None):
                    return
                if row is None and clock.perf_counter() - self.saved_at > SAVE_WITHIN:
                    self._save()

    def _revises(self, validated: bool) -> bool:
        """Look at the plan after a step, if it is time to, and say whether there is another one now."""
        if self.timekeeper is None or self.complete:
            return False
        self.timekeeper.count(validated)
        # Several processes must look at the same steps.
        due = self.timekeeper.due(self.plan.steps - self.state.step)
        if not (due if self.processes.count == 1 else validated):
            return False
        steps = self.processes.share(self.timekeeper.revised(self.plan, self.state.step).steps)
        if steps == self.plan.steps:
            return False
        self._follow(self.setup.ending(self.state.step, replace(self.plan, steps=steps)))
        self.state.revision = self.setup.revision(self.told)
        return True

    def _follow(self, setup: Setup) -> None:
        """Go on by settings that differ in their plan."""
        self.setup, self.plan, self.step.optimizer = setup, setup.plan, setup.optimizer
        self.kept.record = {**self.kept.record, **setup.record()}

    def _waits_since(self) -> int:
        """The epoch since which a higher validation is waited for: the highest so far, or where epochs were added."""
        lr = self.setup.optimizer.lr
        added = lr.last_begins // self.plan.epoch_steps if isinstance(lr, InTurn) else 0
        highest = choice.highest(self.state.rows)
        return max(highest["epoch"] if highest else 0, added)

    def _validate(self, epoch: int, train_loss: float, speed: float) -> dict:
        # By shifts it would take five times as long.
        result = evaluation.evaluate_part(self.model, self.parts, "validation", tta=views.quick(self.model.tta))
        return {
            "epoch": epoch, "step": self.state.step, "lr": self.step.lr, "train_loss": train_loss,
            "validation_loss": result.log_loss, "validation_accuracy": result.accuracy, "seconds": 0.0,
            "images_per_second": speed,
        }

    def _judge(self, row: dict) -> bool:
        """Keep the weights if they are the best so far, and say whether they are."""
        if not choice.is_kept(row, self.state.best, self.state.rows, len(self.parts.validation)):
            return False
        self.state.best = dict(row)
        self._keep(row)
        return True

    def _keep(self, row: dict) -> None:
        self.best_is_saved = True  # meanwhile: half a copy must not be
        self.kept.calibration = None  # it is of other weights
        self.kept.load_parameters(self.model.parameters)
        self._note_best(row)
        self.best_is_saved = False

    def _note_best(self, row: dict) -> None:
        self.kept.record["best"] = {k: row[k] for k in ("epoch", "step", "validation_accuracy", "validation_loss")}

    def _require_finite(self) -> None:
        """Raise Diverged where weights or running statistics overflowed, which a loss may hide behind batch norm."""
        for name, values in self.model.parameters.items():
            if not np.isfinite(values).all():
                self.sound = False
                raise Diverged(self.state.step, f"parameter {name}", self.step.lr)

    def _best(self) -> dict | None:
        """The best row. Before the first epoch has ended: that of the present weights, which are kept meanwhile.

        They do not enter the state, so that a resumed run chooses among whole epochs as an unbroken one does.
        """
        if self.state.best is None and self.sound:
            steps = max(self.state.step % self.plan.epoch_steps, 1)
            self.between_steps = False
            with self.average.in_place():
                row = self._validate(self.state.step // self.plan.epoch_steps + 1, self.state.losses / steps, 0.0)
                found = math.isfinite(row["validation_loss"])
                if found:
                    self._keep(row)
            self.between_steps = True
            if found:
                return row
        return self.state.best

    def _save(self, always: bool = False) -> None:
        """Write what has changed; at most once a second, because syncing may take longer than a short epoch."""
        if self.folder is None or not always and clock.perf_counter() - self.saved_at < SAVE_EVERY:
            return
        if not self.best_is_saved:
            self.kept.save(self.folder.best)
            self.best_is_saved = True
        self.folder.write_metrics(self.state.rows)
        if self.sound:  # else the last sound state stays in its file
            self.folder.write_last(self.model.parameters, {**self.step.state(), **self._averages()}, self.state,
                                   self.model.metadata())
        self.saved_at = clock.perf_counter()

    def _progress(self, epoch: int, loss: float, speed: float, row: dict | None, best: bool) -> Progress:
        state, plan = self.state, self.plan
        pace = (clock.perf_counter() - self.began) / max(state.step - self.done_before, 1)
        return Progress(
            epoch=epoch, epochs=plan.epochs, step=state.step, steps=plan.steps, loss=loss, images_per_second=speed,
            seconds_left=pace * (plan.steps - state.step), row=row, best=best,
        )

    def _left(self, best: dict | None) -> str:
        """Where the weights are after training broke off."""
        if self.folder is None:
            return ""
        files = [f"the best weights so far are in {self.folder.best}"] if best is not None else []
        files += [f"the last in {self.folder.last}"] if self.folder.last.exists() else []
        return "".join(f"; {text}" for text in files)


def _model(setup: Setup) -> Model:
    return Model(setup.network, seed=setup.seed, preprocessing=setup.preprocessing, classes=setup.classes,
                 tta=setup.tta)
