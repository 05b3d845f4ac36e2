"""A plan that is kept to its time: counting what fits, revising, and resuming a run whose plan was revised."""

import importlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes_data import CLASSES, pictures
from test_fit import assert_same_tensors, interrupt_at, small, timeless

from pellucid import data as datasets
from pellucid import optim
from pellucid.model import load
from pellucid.schedules import Cosine, OneCycle, Paced, from_json
from pellucid.training import timekeeper, trainer
from pellucid.training.fit import fit
from pellucid.training.plan import WHOLE, Pace, Plan
from pellucid.training.run import RunFolder
from pellucid.training.setup import Setup
from pellucid.training.timekeeper import Timekeeper, steps_in_time

fitting = importlib.import_module("pellucid.training.fit")  # the package has a function of that name


def seconds_of(plan, first, last, pace):
    """How long the steps from one to another take, and the validations at the ends of epochs and of the run."""
    ends = sum(step % plan.epoch_steps == 0 or step == last for step in range(first + 1, last + 1))
    return (last - first) * pace.step + ends * pace.epoch


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 60), st.integers(0, 200), st.integers(1, 7),
       st.integers(0, 9))
def test_no_more_steps_fit_into_the_time(epoch_steps, steps, step, seconds, each, epoch):
    plan, pace = Plan(4, epoch_steps, steps), Pace(each, epoch, 0)
    end = steps_in_time(plan, step, seconds, pace)
    assert end > step
    assert end == step + 1 or seconds_of(plan, step, end, pace) <= seconds
    if plan.epochs < WHOLE:
        assert seconds_of(plan, step, end + 1, pace) > seconds
    elif end > step + 1:
        assert end % epoch_steps == 0 and seconds_of(plan, step, end + epoch_steps, pace) > seconds


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("speeds", [
    pytest.param(lambda at: 1.0, id="as measured"), pytest.param(lambda at: 0.6, id="slower from the start"),
    pytest.param(lambda at: 1.5, id="faster"), pytest.param(lambda at: 0.7 if at > 40 else 1.2, id="slower later"),
    pytest.param(lambda at: 1 + 0.3 * np.sin(at / 7), id="now so, now so"),
])
@pytest.mark.parametrize("epoch_steps", [1, 2, 30, 400])
def test_a_run_ends_in_time_whatever_the_machine_does(monkeypatch, speeds, epoch_steps):
    clock = Clock()
    monkeypatch.setattr(timekeeper, "time", clock)
    budget, pace = 100.0, Pace(0.05, 0.5, 2.0)
    keeper, plan, step = Timekeeper(clock.now + budget, pace), Plan(8, epoch_steps, int(92 / 0.05)), 0
    keeper.begin()
    while step < plan.steps:
        step += 1
        clock.now += pace.step / speeds(clock.now - 100)
        ended = step % epoch_steps == 0 or step == plan.steps
        if ended:
            clock.now += pace.epoch / speeds(clock.now - 100)
        keeper.count(ended)
        if step < plan.steps and keeper.due(plan.steps - step):
            plan = keeper.revised(plan, step)
        if ended:
            clock.now += 0.1  # saved
            keeper.begin()
    assert 93 < clock.now + pace.end / speeds(clock.now - 100) - 100 < 100.5


@pytest.mark.parametrize("epoch_steps", [1, 30, 10_000])
def test_steps_that_are_faster_than_thought_leave_time_for_the_test(monkeypatch, epoch_steps):
    """A step's time is told by smaller batches, the test's by itself."""
    clock = Clock()
    monkeypatch.setattr(timekeeper, "time", clock)
    keeper, plan, step = Timekeeper(clock.now + 100, Pace(0.1, 0.0, 10.0)), Plan(8, epoch_steps, 880), 0
    while step < plan.steps:
        step += 1
        clock.now += 0.05
        keeper.count(step % epoch_steps == 0)
        if step < plan.steps and keeper.due(plan.steps - step):
            plan = keeper.revised(plan, step)
        keeper.begin()
    assert 93 < clock.now + 10 - 100 < 100


def test_a_small_change_is_none(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timekeeper, "time", clock)
    keeper, plan = Timekeeper(clock.now + 102, Pace(1.0, 0.0, 0.0)), Plan(8, 1000, 100)
    for _ in range(50):
        clock.now += 1.0
        keeper.count(False)
    assert keeper.due(50) and keeper.revised(plan, 50) is plan


def test_a_plan_that_is_far_too_short_is_extended_before_it_ends(monkeypatch):
    """A machine that stood still while steps were timed."""
    clock = Clock()
    monkeypatch.setattr(timekeeper, "time", clock)
    keeper, plan, step = Timekeeper(clock.now + 100, Pace(5.0, 0.0, 0.0)), Plan(8, 10_000, 20), 0
    while step < plan.steps:
        step += 1
        clock.now += 0.05
        keeper.count(False)
        if step < plan.steps and keeper.due(plan.steps - step):
            plan = keeper.revised(plan, step)
    assert 93 < clock.now - 100 < 100


class TestPaced:
    def test_it_takes_its_schedule_at_another_pace(self):
        schedule = Cosine(0.4, 100)
        paced = Paced(schedule, ((0, 0), (100, 100))).ending(20, 60).ending(40, 140)
        assert [paced(step) for step in (0, 10, 20, 30, 40, 90, 140, 999)] == pytest.approx(
            [schedule(step) for step in (0, 10, 20, 40, 60, 80, 100, 100)])
        assert paced(140) == pytest.approx(0, abs=1e-12)

    def test_from_the_first_step_on(self):
        assert Paced(OneCycle(1.0, 10), ((0, 0), (10, 10))).ending(0, 20).knots == ((0, 0), (20, 10))

    def test_json(self):
        paced = Paced(OneCycle(1.0, 10), ((0, 0), (4, 3.5), (10, 10)))
        again = from_json(json.loads(json.dumps(paced.to_json())))
        assert again == paced and [again(s) for s in range(12)] == [paced(s) for s in range(12)]

    @pytest.mark.parametrize(("schedule", "knots", "message"), [
        (0.1, ((0, 0), (1, 1)), "only a schedule has a pace"),
        (Cosine(0.1, 9), ((0, 0),), "knots must rise"), (Cosine(0.1, 9), ((0, 0), (3, 3), (3, 4)), "knots must rise"),
        (Cosine(0.1, 9), ((0, 1), (3, 3)), "knots must rise"), (Cosine(0.1, 9), 5, "knots must be pairs"),
        (Cosine(0.1, 9), ((0, 0), ("3", 3)), "knots must rise"),
        ({"kind": "None"}, ((0, 0), (1, 1)), "unknown schedule"),
    ])
    def test_what_is_refused(self, schedule, knots, message):
        with pytest.raises(ValueError, match=message):
            Paced(schedule, knots)


@pytest.fixture(scope="module")
def data():
    return datasets.to_dataset("shapes", *pictures(), classes=CLASSES)


EPOCH = 5  # steps of an epoch of these data


@pytest.fixture
def slowing(monkeypatch):
    """Progress after which a clock of its own says that steps take twice what was measured, in runs with a `time`: they
    are planned to take 400 steps, so half of them fit."""
    clock = Clock()
    monkeypatch.setattr(timekeeper, "time", clock)
    monkeypatch.setattr(fitting, "Timekeeper", lambda ends, pace: Timekeeper(clock.now + 400, Pace(1.0, 0.0, 0.0)))
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0)
    monkeypatch.setattr(fitting.planning, "plan_with_enough_steps", lambda *_: Plan(16, EPOCH, 400))

    def progress(p):
        clock.now += 2.0
    return progress


def test_a_run_that_slows_down_ends_sooner_at_the_end_of_its_schedule(data, tmp_path, slowing):
    run = fit(small(), data, time=60, seed=2, patience=0, out=tmp_path / "run", progress=slowing)
    final = run.setup.plan.steps
    assert run.steps == final and 180 <= final <= 200 and final % EPOCH == 0  # so many epochs are whole ones
    assert run.setup.optimizer.rate(final) < 1e-6 < run.setup.optimizer.rate(final // 2)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["steps"] == final and config["optimizer"]["lr"]["kind"] == "Paced" and run.config == config
    record = load(tmp_path / "run/best.safetensors").record
    assert record["steps"] == final and record["optimizer"] == config["optimizer"]
    again = fit(data=data, out=tmp_path / "run", resume=True)  # nothing is left to do
    assert again.steps == final and again.test == run.test
    longer = fit(data=data, out=tmp_path / "run", resume=True, epochs="+2")
    assert longer.steps == final + 2 * EPOCH


def test_a_revised_run_resumes_to_the_bit_and_by_its_last_plan(data, tmp_path, slowing):
    """Killed after it saved a revised plan, which config.json does not know yet; and stopped and resumed once more."""
    copied = []

    def copy(p):
        slowing(p)
        if not copied and p.step > 100 and (revision := RunFolder(tmp_path / "run").read_revision()):
            copied.append(revision["to"]["steps"])
            for name in ("a", "b", "longer"):
                shutil.copytree(tmp_path / "run", tmp_path / name)

    fit(small(), data, time=60, seed=2, patience=0, out=tmp_path / "run", progress=copy)
    assert json.loads((tmp_path / "a/config.json").read_text())["steps"] == 400 > copied[0]
    whole = fit(data=data, out=tmp_path / "a", resume=True)
    assert whole.steps == copied[0] and whole.setup.optimizer.rate(whole.steps) < 1e-6
    fit(data=data, out=tmp_path / "b", resume=True, progress=interrupt_at(whole.steps - 7))
    fit(data=data, out=tmp_path / "b", resume=True)
    for file in ("best.safetensors", "last.safetensors"):
        assert_same_tensors(tmp_path / "a" / file, tmp_path / "b" / file)
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    longer = fit(data=data, out=tmp_path / "longer", resume=True, epochs="+2")
    assert longer.steps == whole.steps + 2 * EPOCH


def test_an_epoch_in_which_the_plan_is_revised_is_timed_from_its_beginning(data, slowing, monkeypatch):
    class Ticking(Clock):
        def perf_counter(self):
            self.now += 1e-6
            return self.now

    clock, planned = Ticking(), []
    monkeypatch.setattr(trainer, "clock", clock)

    def progress(p):
        for _ in range(1 + (p.step % 7 == 0)):
            slowing(p)
        clock.now += 1.0
        planned.append(p.steps)

    run = fit(small(), data, time=60, seed=2, patience=0, out=False, progress=progress)
    assert any(planned[step] != planned[step - 1] for step in range(1, len(planned)) if step % EPOCH)
    # A row is made before progress hears of it.
    assert [row["seconds"] for row in run.history] == pytest.approx([EPOCH - 1] * len(run.history), abs=0.01)


@pytest.mark.parametrize("schedule", [Cosine(0.1, 9), Paced(Cosine(0.1, 9), ((0, 0), (20, 9)))])
def test_a_schedule_that_ends_before_the_plan(data, schedule):
    setup = fit(small(), data, epochs=8, out=False, optimizer=optim.SGD(lr=schedule)).setup
    longer = setup.ending(30, Plan(16, EPOCH, 60)).ending(45, Plan(16, EPOCH, 50))
    rates = [longer.optimizer.rate(step) for step in (0, 10, 30, 59)]
    assert rates == [schedule(step) for step in (0, 10, 30, 35)]


def test_a_damaged_revision_is_refused(data):
    run = fit(small(), data, epochs=1, out=False)
    told = {"steps": run.setup.plan.steps, "lr": run.setup._planned()["lr"]}
    assert run.setup.revised(None) is run.setup
    assert run.setup.revised({"of": {"steps": 1, "lr": 0.1}, "to": {"steps": 9, "lr": 0.1}}) is run.setup
    for revision, message in (([], "a revision of the plan cannot be"), ({"of": told, "to": 3}, "a plan cannot be"),
                              ({"of": told, "to": {"steps": -1, "lr": 0.1}}, "steps must be a whole number"),
                              ({"of": told, "to": {"steps": 9, "lr": "x"}}, "lr must be a finite number")):
        with pytest.raises(ValueError, match=message):
            Setup.revised(run.setup, revision)
