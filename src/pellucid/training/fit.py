"""Train a network on a data set: from what is asked for to a run's settings, and on."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import data as datasets
from .. import views, zoo
from ..data import duplicates
from ..data.check import brief
from ..distributed import Processes
from ..exchange import load
from ..network import Network
from ..optim import Optimiser
from ..schedules import InTurn, OneCycle
from . import engines, finetune, recipes, restart
from . import plan as planning
from .measuring import measure
from .progress import Progress
from .result import Run
from .run import RunFolder
from .setup import Setup, check_same, facts, peak, prepare
from .timekeeper import Timekeeper
from .trainer import Trainer

__all__ = ["Run", "fit"]

# Seconds that a network is timed: a share of the time that is given, within limits.
MEASURE_SHARE, LEAST_MEASURE, MOST_MEASURE = 0.02, 0.3, 3.0
# The time of a step goes with its multiply-adds to this power, at best: at width 32 `convnet` takes 1.3 times as long
# as at 16, for 3.1 times as many (a processor with AVX-512).
GAIN = 0.25


def fit(
    network: Network | str | None = None,
    data: str | os.PathLike | datasets.Dataset | tuple | None = None,
    *,
    epochs: int | str | None = None,
    time: float | str | None = None,
    seed: int | None = None,
    out: str | os.PathLike | bool | None = None,
    recipe: str | None = None,
    init: str | os.PathLike | None = None,
    size: int | tuple[int, int] | None = None,
    fit_by: str | None = None,
    batch_size: int | None = None,
    optimizer: Optimiser | None = None,
    lr: float | None = None,
    label_smoothing: float | None = None,
    shift: int | None = None,
    mirror: bool | None = None,
    cutout: int | None = None,
    balance: bool | None = None,
    averaging: bool | None = None,
    tta: str | bool | None = None,
    patience: int | None = None,
    resume: bool = False,
    engine: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    loading: Callable[[int, int], object] | None = None,
    on_start: Callable[[Setup, Path | None], None] | None = None,
    command: list[str] | None = None,
    reserve: float = 0.0,
) -> Run:
    """Train `network` on `data`; returns the `Run`, with the best weights by validation and their test accuracy.

    network: a Network, the name of one in the zoo, or None for one that suits images and time (see `recipes`).
    data: what `pellucid.data.load` takes, a Dataset, or (images, labels) as arrays; None for "digits".
    epochs, time: how long. `time` is in seconds or like "2m": some steps are timed on a throwaway model, then the
        network's width, the pictures' size and the number of epochs are planned so that the schedule ends in time.
        The epochs are planned again as the pace of the run becomes known; a resumed run keeps the last plan.
        With neither, about as long as small data need.
    seed: decides the split, the initial weights, the order of images and all other chance; at least 0, which is the
        default.
    out: the run folder, new or empty; None for runs/<data>-<network>-<n>, False for none at all.
    recipe: "fast", "standard" (None) or "best": how much to spend where network, epochs or time leave it open.
    init: a model file to start from: its network with a new last layer, its weights, its preprocessing; the layers that
        have learned already learn at a tenth of the rate.
    size, fit_by: what pictures are brought to, and how: `size` and `fit` of `pellucid.data.load`.
    batch_size: by default from the number of images.
    optimizer, lr: an optimiser of `pellucid.optim`, taken as it is (but with `time` its schedule keeps to the plan); or
        only the peak of the default's rate (see `recipes.optimizer`).
    label_smoothing: share of each label that is spread over all classes; by default 0.1, of images in colour 0.2.
    shift: pixels by which training images are moved at random; by default about a fourteenth of the side, 0 for none.
    mirror: whether training images are mirrored every other epoch; None asks the images (see `handedness`).
    cutout: side of a square that is painted over in each training image, in pixels.
    balance: whether the losses of rare classes weigh more; None for where the numbers of images are uneven.
    averaging: whether weights are averaged over the last steps for validation and for the model that is kept; by
        default they are.
    tta: test-time augmentation, the views that the model's answers are the mean over: "none", the image alone;
        "mirror" (or True), also its mirror image; "shifts", also both moved a little. None for what suits: "none" where
        training images are not mirrored, else "mirror", and "shifts" by the recipe "best" if `shift` goes as far.
    patience: epochs without a higher validation accuracy after which training stops; None for half of them (at least
        10), 0 for never.
    resume: continue the run in `out` from its last step, under the settings it was started with: the weights end as
        if it had never stopped, to the bit with the compiled kernels. Only `data` may be given again, and must be
        where it came from arrays; and `epochs`, as "+5", adds epochs to a run, with a schedule of their own.
    engine, device, precision: "native" for the compiled kernels in "int16" (see `TrainStep`) or "float32", "torch" for
        PyTorch on a device ("cpu", "cuda", "mps") in "float32", "bfloat16" or "float16"; see `engines` and
        docs/scaling.md. None for what suits. A run may be resumed by another engine than it was started with.
    progress, loading, on_start: called with a `Progress` after every step; with the number of pictures read and their
        total, while they are read for the first time; with the settings and the run folder before training.
    command: the command line, kept in config.json, where those that resumed the run are, too.
    reserve: seconds of `time` that are kept free for what is to follow, up to a fifth of it.

    Ctrl-C ends the run after the current step; the result says `interrupted`, and all is saved for `resume`. A second
    one raises KeyboardInterrupt; that and errors in `progress` pass on after saving. Raises Diverged, after saving the
    weights before it, when loss or gradient is no longer finite; ValueError for settings and data that do not fit,
    OSError where `out` cannot be written.
    """
    settings, started = dict(locals()), clock.perf_counter()
    if resume:
        _refuse_settings(network=network, time=time, batch_size=batch_size, optimizer=optimizer, lr=lr, shift=shift,
                         mirror=mirror, cutout=cutout, balance=balance, patience=patience, recipe=recipe, init=init,
                         seed=seed, label_smoothing=label_smoothing, averaging=averaging, tta=tta, size=size,
                         fit_by=fit_by)
        more = None if epochs is None else planning.more_epochs(epochs)
        if out is None or isinstance(out, bool):
            raise ValueError("resume needs the folder of the run in out")
        on = engines.again(out, engine, device, precision)
        return _resume(out, data, more, on, progress, loading, on_start, command)

    seed = planning.whole("seed", 0 if seed is None else seed, 0)
    if epochs is not None and time is not None:
        raise ValueError("give epochs or time, not both")
    if optimizer is not None and lr is not None:
        raise ValueError("give the learning rate to the optimizer, or lr alone")
    if network is not None and init is not None:
        raise ValueError("give a network or the model to start from, not both: that model brings its network")
    lr = None if lr is None else peak(lr)
    tta = None if tta is None else views.named(tta)
    if isinstance(network, str):
        zoo.require(network)  # before anything is read
    on = engines.choose(engine, device, precision)
    if again := restart.found(on.processes, out, command, time):
        return _resume(out, data, None, on, progress, loading, on_start, command)
    if out is not None and not isinstance(out, bool) and again is None:
        RunFolder.require_new(out)
    budget = None if time is None else planning.duration(time)
    spending = recipes.recipe_of(recipe)
    for name, value in (("mirror", mirror), ("balance", balance), ("averaging", averaging)):
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{name} must be True, False or None, got {value!r}")
    start = None if init is None else load(init)
    before = None if start is None else RunFolder(Path(init).parent).read_seen(start.record)
    if start is not None:
        start.require_preprocessing()
        if size is not None or fit_by is not None:
            raise ValueError("the model to start from brings its own size, and how pictures are fitted to it")
    as_read = start.preprocessing.loading if start else {"size": size, "fit": fit_by}
    dataset, source = _dataset("digits" if data is None else data, loading, on.processes, **as_read)
    begin = None if start is None else finetune.beginning(start, init, len(dataset.classes))
    parts = datasets.split(dataset, seed)
    plan = planning.plan(len(parts.train), batch=batch_size, epochs=epochs, effort=spending.effort,
                         most=recipes.MOST_EPOCHS)
    candidates: list = [begin.network if begin else network]
    if candidates == [None]:
        candidates = recipes.networks(dataset.input_shape, spending)
    changes, why = recipes.augmentation(parts.train.images, dataset.input_shape, seed, shift=shift, mirror=mirror,
                                        cutout=cutout)
    weights, uneven = recipes.class_weights(parts.train.labels, dataset.classes, balance)
    smoothing = recipes.label_smoothing(dataset.input_shape) if label_smoothing is None else label_smoothing
    asked = {"seed": seed, "source": source, "label_smoothing": smoothing, "averaging": averaging is not False,
             "tta": tta, "recipe": recipe, "patience": patience, "begin": begin, "optimizer": optimizer, "lr": lr,
             "changes": changes, "class_weights": weights, "notes": [*brief(dataset, parts), *why, *uneven]}
    known = facts(dataset, parts, begin)
    seen = _seen(parts, before) if out is not False and on.processes.main else None
    setup = prepare(candidates[0], dataset, plan, known, **asked)
    if budget is not None:
        ends = started + budget - min(reserve, budget / 5)
        chosen, pace = _in_time(candidates, lambda c: prepare(c, dataset, plan, known, **asked), parts, ends,
                                spending.least, on)
        left = ends - clock.perf_counter()
        plan = (planning.plan_for_time(plan, left, pace) if batch_size is not None else
                planning.plan_with_enough_steps(plan, len(parts.train), left, pace))
        smaller = max((s for s in datasets.SIZES if s < min(dataset.input_shape[:2])), default=None)
        chosen_freely = network is None and init is None and size is None and dataset.pictures is not None
        if plan.epochs < spending.least and chosen_freely and smaller and left > budget / 2:
            # Too much for the narrowest network, too.
            return fit(**{**settings, "size": smaller, "time": left, "reserve": 0.0})
        setup = prepare(chosen, dataset, plan, known, **asked)
    on.processes.require_same("data and settings", setup.deciding())
    trainer = Trainer(setup, parts, progress, on)
    trainer.begin(begin.weights if begin else None)
    if budget is not None:
        trainer.timekeeper = Timekeeper(ends, pace.at(plan.batch_size))
    config = {**setup.to_json(), "command": command, **on.to_json()}
    with on.processes.agreeing():
        if out is not False and on.processes.main:
            folder = (RunFolder.create(out, f"{Path(dataset.name).stem}-{setup.network_name}") if again is None
                      else RunFolder(out))
            folder.write_config(config)
            folder.write_seen(seen, known)
            trainer.folder = folder
    return trainer.run(config, on_start)


def _seen(parts: datasets.Split, before: np.ndarray | None) -> np.ndarray:
    """The digests of the images that training sees, and those of the model from which it begins."""
    seen = [duplicates.digests(part.images) for part in (parts.train, parts.validation)]
    return np.unique(np.concatenate(seen if before is None else [*seen, before]))


def _in_time(
    candidates: list, setup_of: Callable, parts: datasets.Split, ends: float, least: int,
    on: engines.Native | engines.Torch,
) -> tuple[object, planning.Pace]:
    """The first of the networks for which there is time for `least` epochs until `ends`, or the last; and its pace.

    The last is timed first, being the quickest, and then the one before it, as long as a network has time enough and
    the next may have. Twice the multiply-adds take less than twice the time, because wide layers are computed faster:
    how much less is told by GAIN.
    """
    chosen, known = None, None
    for candidate in reversed(candidates):
        setup = setup_of(candidate)
        macs = sum(setup.network.macs.values())
        if known is not None:
            hoped = known[0].scaled((macs / known[1]) ** GAIN)
            if not _reaches(least, setup, ends, hoped):
                break
        left = ends - clock.perf_counter()
        pace = measure(setup, parts, on, min(max(left * MEASURE_SHARE, LEAST_MEASURE), MOST_MEASURE))
        if chosen is not None and not _reaches(least, setup, ends, pace):
            break
        chosen, known = (candidate, pace), (pace, macs)
        if not _reaches(least, setup, ends, pace):
            break
    return chosen


def _reaches(least: int, setup: Setup, ends: float, pace: planning.Pace) -> bool:
    """Whether there is time for `least` epochs."""
    plan = planning.plan_for_time(setup.plan, ends - clock.perf_counter(), pace)
    return plan.steps >= least * plan.epoch_steps


def _resume(out, data, more: int | None, on: engines.Native | engines.Torch, progress, loading, on_start,
            command: list[str] | None) -> Run:
    """Go on with the run in a folder, and so many epochs longer than was planned."""
    processes, folder = on.processes, RunFolder(out)
    with processes.agreeing():
        read = processes.main and (RunFolder.existing(out).read_config(), folder.read_revision())
    config, revision = processes.share(read)
    config = {**config, **on.to_json()}
    if command is not None:
        before = config.get("resumed")
        config["resumed"] = [*(before if isinstance(before, list) else []), command]
    try:
        setup = Setup.from_json(config)
    except ValueError as e:
        raise ValueError(f"{folder.config}: {e}; it cannot be resumed, start a new run") from None
    if data is None and setup.source is None:
        raise ValueError(f"the run in {folder.path} was trained on arrays; give them again as data")
    dataset, _ = _dataset(setup.source if data is None else data, loading, processes,
                          **setup.preprocessing.loading)
    parts = datasets.split(dataset, setup.seed)
    with processes.agreeing():
        check_same(setup, dataset, parts)
    if more:
        result, setup = config.pop("result", {}), setup.revised(revision)
        setup = _longer(setup, more, result["steps"] if result.get("stopped_early") else setup.plan.steps)
        config.update(setup.to_json())
    trainer = Trainer(setup, parts, progress, on)
    trainer.folder = folder if processes.main else None
    trainer.restore()
    if more:
        with processes.agreeing():
            if processes.main:
                folder.write_config(config)
    return trainer.run(config, on_start)


def _longer(setup: Setup, epochs: int, done: int) -> Setup:
    """The same run with more epochs after its first `done` steps, in which the rate rises again to a third of its peak
    and falls to zero."""
    plan, optimizer = setup.plan, setup.optimizer
    # An epoch that time cut short is filled up, so that epochs stay as long as they are.
    steps = (-(-done // plan.epoch_steps) + epochs) * plan.epoch_steps
    highest = max(optimizer.rate(step) for step in range(0, done, max(done // 1000, 1)))
    before = optimizer.lr.parts if isinstance(optimizer.lr, InTurn) else ((optimizer.lr, plan.steps),)
    before = (*before[:-1], (before[-1][0], done - sum(steps for _, steps in before[:-1])))
    parts = (*before, (OneCycle(highest / 3, steps - done), steps - done))
    return replace(setup, plan=replace(plan, steps=steps), optimizer=replace(optimizer, lr=InTurn(parts)))


def _dataset(
    data, loading: Callable | None, processes: Processes, **as_read
) -> tuple[datasets.Dataset, str | None]:
    """The data set, its pictures read in a size and fitted in a way; and the text that loads it again from anywhere."""
    if isinstance(data, datasets.Dataset):
        return data, None
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ValueError(f"data as arrays must be (images, labels), got {len(data)} things")
        return datasets.to_dataset("arrays", *map(np.asarray, data)), None
    with processes.agreeing(), processes.first_here():  # the others find decoded pictures
        dataset = datasets.load(data, **as_read, progress=loading)
    built_in = isinstance(data, str) and data in datasets.BUILT_IN
    return dataset, data if built_in else os.path.abspath(os.path.expanduser(os.fspath(data)))


def _refuse_settings(**settings) -> None:
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise ValueError(f"a resumed run keeps the settings it was started with; leave out {', '.join(given)}")
