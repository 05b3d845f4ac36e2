"""Schedules and optimisers as values: rates at the points that matter, JSON both ways, refusals."""

import json
from dataclasses import dataclass
from math import cos, pi, sqrt

import pytest

from pellucid import optim, schedules
from pellucid.schedules import Constant, Cosine, OneCycle


def test_constant_after_warm_up():
    schedule = Constant(0.4, warmup=4)
    assert [schedule(step) for step in (0, 1, 3, 4, 10_000)] == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])
    assert Constant(0.4)(0) == 0.4


def test_cosine_at_start_warm_up_end_middle_and_end():
    schedule = Cosine(0.8, steps=104, warmup=4, final=0.2)
    expected = {0: 0.2, 3: 0.8, 4: 0.8, 29: 0.2 + 0.3 * (1 + cos(pi / 4)), 54: 0.5, 104: 0.2, 500: 0.2}
    assert {step: schedule(step) for step in expected} == pytest.approx(expected)


def test_cosine_without_warm_up_starts_at_its_highest_and_only_falls():
    rates = [Cosine(0.8, steps=50)(step) for step in range(51)]
    assert rates[0] == 0.8 and rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in zip(rates, rates[1:], strict=False))


def test_one_cycle_at_start_top_middle_and_end():
    schedule = OneCycle(1.0, steps=100, warmup=0.2, start=0.1, final=0.02)
    expected = {0: 0.1, 10: 0.55, 20: 1.0, 60: 0.51, 100: 0.02, 101: 0.02}
    assert {step: schedule(step) for step in expected} == pytest.approx(expected)
    rates = [schedule(step) for step in range(101)]
    assert rates.index(max(rates)) == 20


def test_one_cycle_defaults():
    schedule = OneCycle(0.5, steps=40)
    assert schedule(0) == pytest.approx(0.02) and schedule(10) == 0.5
    assert schedule(40) == pytest.approx(0, abs=1e-12)
    assert OneCycle(0.5, steps=40, warmup=0)(0) == 0.5


@pytest.mark.parametrize("schedule", [
    Constant(0.1), Constant(0.1, warmup=7), Cosine(0.1, 90), Cosine(0.1, 90, warmup=5, final=0.01),
    OneCycle(0.3, 64), OneCycle(0.3, 64, warmup=0.5, start=0.003, final=0.001),
])
def test_schedules_survive_json(schedule):
    again = schedules.from_json(json.loads(json.dumps(schedule.to_json())))
    assert again == schedule
    assert [again(step) for step in range(100)] == [schedule(step) for step in range(100)]


def test_a_plain_rate_is_its_own_json():
    assert schedules.to_json(0.25) == 0.25 and schedules.from_json(0.25) == 0.25


def test_a_schedule_of_ones_own_is_written_when_derived_and_refused_when_not():
    @dataclass(frozen=True)
    class Halving(schedules.Schedule):
        lr: float

        def __call__(self, step):
            return self.lr / 2**step

    try:
        assert schedules.from_json(schedules.to_json(Halving(0.5))) == Halving(0.5)
        assert optim.SGD(lr=Halving(0.5)).rates(3) == (0.0625,)
    finally:
        del schedules.SCHEDULES["Halving"]
    with pytest.raises(TypeError, match="pellucid.schedules.Schedule"):
        optim.SGD(lr=lambda step: 0.1).to_json()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Constant(-0.1), "lr must be a finite number, at least 0, got -0.1"),
    (lambda: Constant(float("nan")), "lr must be a finite"),
    (lambda: Constant("0.1"), "lr must be a finite"),
    (lambda: Constant(0.1, warmup=-1), "warmup must be a whole number of steps, at least 0, got -1"),
    (lambda: Cosine(0.1, steps=0), "steps must be a whole number of steps, at least 1, got 0"),
    (lambda: Cosine(0.1, steps=1.5), "steps must be a whole number"),
    (lambda: Cosine(0.1, steps=10, warmup=10), r"warmup must be below steps \(10\), got 10"),
    (lambda: Cosine(0.1, steps=10, final=0.2), "final must be at most lr"),
    (lambda: OneCycle(0.1, steps=10, warmup=1.0), "warmup must be a share of the steps"),
    (lambda: OneCycle(0.1, steps=10, start=0.2), "start must be at most lr"),
    (lambda: OneCycle(0.1, steps=10, final=float("inf")), "final must be a finite"),
    (lambda: schedules.from_json({"kind": "Linear", "lr": 0.1}), "unknown schedule 'Linear'; known are Constant"),
    (lambda: schedules.from_json({"lr": 0.1}), "unknown schedule None"),
    (lambda: schedules.from_json({"kind": "Constant", "lr": 0.1, "gamma": 2}), "Constant has no field 'gamma'"),
    (lambda: schedules.from_json({"kind": "Cosine", "lr": 0.1}), "Cosine: .*steps"),
    (lambda: schedules.from_json({"kind": "Cosine", "lr": 0.1, "steps": "many"}), "Cosine: steps must be"),
    (lambda: schedules.from_json(None), "lr must be a finite"),
])
def test_bad_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


OPTIMISERS = [
    optim.SGD(), optim.SGD(0.1, 0.9, True, 5e-4), optim.SGD(lr=Cosine(0.1, 90), momentum=0.5), optim.Adam(),
    optim.Adam(2e-3, (0.8, 0.99), 1e-6, 0.1), optim.AdamW(lr=OneCycle(0.01, 50)),
]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_optimisers_survive_json(optimiser):
    again = optim.from_json(json.loads(json.dumps(optimiser.to_json())))
    assert again == optimiser
    assert again.rates(17) == optimiser.rates(17) and again.call_arguments() == optimiser.call_arguments()


def test_rates_follow_the_schedule_and_correct_the_bias():
    assert optim.SGD(lr=Constant(0.4, warmup=4)).rates(1) == pytest.approx((0.2,))
    for step in (0, 1, 9, 5000):
        t = step + 1
        rate, root, keep = optim.Adam(0.01, betas=(0.9, 0.99), weight_decay=0.3).rates(step)
        assert (rate, root, keep) == pytest.approx((0.01 / (1 - 0.9**t), 1 / sqrt(1 - 0.99**t), 1.0))
        decoupled = optim.AdamW(Cosine(0.01, 5000), betas=(0.9, 0.99), weight_decay=0.3).rates(step)
        assert decoupled[2] == pytest.approx(1 - 0.3 * Cosine(0.01, 5000)(step))


def test_weight_decay_reaches_the_gradient_or_the_parameters_but_not_both():
    assert optim.Adam(weight_decay=0.1).call_arguments()[1]["weight_decay"] == 0.1
    assert optim.AdamW(weight_decay=0.1).call_arguments()[1]["weight_decay"] == 0


def test_state_buffers():
    assert optim.SGD().slots == ()
    assert optim.SGD(momentum=0.9).slots == ("momentum",)
    assert optim.Adam().slots == optim.AdamW().slots == ("m", "v")


def test_calls_name_every_buffer_once():
    name, arguments = optim.SGD(weight_decay=0.5).call("p", "g", "r", {})
    assert name == "sgd" and arguments == {"sgd": "p", "g": "g", "rates": "r", "weight_decay": 0.5}
    name, arguments = optim.SGD(momentum=0.9, nesterov=True).call("p", "g", "r", {"momentum": "m"})
    assert name == "nesterov_sgd" and arguments["nesterov_sgd.0"] == "p" and arguments["nesterov_sgd.1"] == "m"
    name, arguments = optim.AdamW().call("p", "g", "r", {"v": "second", "m": "first"})
    assert [arguments[f"adam.{i}"] for i in range(3)] == ["p", "first", "second"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: optim.SGD(lr=-1), "lr must be a number, at least 0 and finite, got -1; a schedule"),
    (lambda: optim.SGD(lr=float("nan")), "lr must be a number"),
    (lambda: optim.SGD(momentum=1.0), "momentum must be a number, at least 0 and below 1, got 1.0"),
    (lambda: optim.SGD(nesterov=True), "give a momentum above 0"),
    (lambda: optim.SGD(momentum=0.9, nesterov="yes"), "nesterov must be True or False"),
    (lambda: optim.SGD(weight_decay=-0.1), "weight_decay must be a number"),
    (lambda: optim.Adam(betas=(0.9, 1.0)), "betas must be two numbers"),
    (lambda: optim.Adam(betas=0.9), "betas must be two numbers"),
    (lambda: optim.Adam(eps=0), "eps must be a number"),
    (lambda: optim.SGD(lr=lambda step: -0.5).rates(3), "at step 3 it gave -0.5"),
    (lambda: optim.SGD(lr=lambda step: float("nan")).rates(0), "at step 0 it gave nan"),
    (lambda: optim.from_json({"kind": "Lion"}), "unknown optimiser 'Lion'; known are Adam"),
    (lambda: optim.from_json({"kind": "SGD", "mass": 1}), "SGD has no field 'mass'"),
    (lambda: optim.from_json({"kind": "SGD", "momentum": 2}), "SGD: momentum must be"),
    (lambda: optim.from_json([1]), "an optimiser must be a dict"),
])
def test_bad_optimisers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
