"""The table of kernels for 3x3 convolutions: complete, and read by the nearest shape, never by the batch."""

import pytest

from pellucid import Model, zoo
from pellucid.engine import algorithms
from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.layers import Conv
from pellucid.network import Network


@pytest.mark.parametrize("isa", algorithms.table())
def test_every_direction_was_measured_on_the_same_shapes(isa):
    directions = algorithms.table()[isa]
    assert set(directions) == {"forward", "input", "weight"}
    shapes = [[row[:4] for row in rows] for rows in directions.values()]
    assert len(shapes[0]) >= 15 and shapes[0] == shapes[1] == shapes[2]
    assert all(ratio > 0 for rows in directions.values() for *_, ratio in rows)


def test_a_measured_shape_is_computed_as_was_faster():
    for isa, directions in algorithms.table().items():
        for direction, rows in directions.items():
            for height, width, channels, filters, ratio in rows:
                expected = "winograd" if ratio > 1 else "direct"
                assert algorithms.choose(isa, direction, (height, width), channels, filters) == expected


def test_another_shape_goes_by_the_nearest(monkeypatch):
    rows = [[8, 8, 64, 64, 2.0], [8, 8, 512, 512, 0.5], [64, 64, 512, 512, 3.0]]
    monkeypatch.setattr(algorithms, "table", lambda: {"here": {"forward": rows}})
    algorithms.choose.cache_clear()
    try:
        for isa in ("here", "elsewhere"):  # an instruction set that was not measured goes by one that was
            assert algorithms.choose(isa, "forward", (9, 7), 48, 80) == "winograd"
            assert algorithms.choose(isa, "forward", (7, 7), 512, 256) == "direct"
            assert algorithms.choose(isa, "forward", (60, 60), 512, 256) == "winograd"
            assert algorithms.choose(isa, "forward", (5, 5), 64, 64) == "direct"  # 39 of 64 places are wasted
    finally:
        algorithms.choose.cache_clear()


def test_few_channels_are_always_direct_so_that_small_integers_stay_exact():
    assert algorithms.choose("avx2", "forward", (32, 32), 31, 64) == "direct"
    assert algorithms.choose("avx2", "forward", (32, 32), 64, 31) == "direct"
    assert algorithms.choose("avx2", "forward", (1, 32), 64, 64) == "direct"


def test_each_direction_asks_for_the_layers_own_shape(monkeypatch):
    asked = []
    monkeypatch.setattr(algorithms, "choose", lambda isa, *shape: asked.append(shape) or "direct")
    network = Network.build((9, 12, 32), Conv(48, 3, padding=1))
    parameters, gradient = (ParameterBuffer(network.parameters()) for _ in range(2))
    Plan(network, parameters, 1, gradient=gradient, input_gradient=True)
    assert set(asked) == {(direction, (9, 12), 32, 48) for direction in ("forward", "input", "weight")}


def test_the_batch_is_no_part_of_it():
    model = Model(zoo.build("cifar_resnet18"))
    kernels = [[c.name for c in Plan(model.network, model.buffer, batch)._calls] for batch in (1, 2, 9)]
    dense = kernels[0][-1]
    assert dense.startswith("conv_") and kernels[0][:-1] == kernels[1][:-1] == kernels[2][:-1]
