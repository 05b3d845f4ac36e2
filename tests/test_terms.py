"""What a number of a layer is made of, for every kind of layer: against its definition, its gradient and the engine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layers import CASES, REGISTERED, seeds
from three_ways import by_engine, integers, normals, parameters, trainable

from pellucid import layers as L
from pellucid.geometry import windows
from pellucid.layers.arithmetic import PADDING
from pellucid.layers.base import Layer
from pellucid.network import INPUT, Network

EXEMPT: dict[str, str] = {}  # name: why a number of it is not explained


def unexplained(registered) -> set[str]:
    return set(registered) - set(CASES) - {name for name, reason in EXEMPT.items() if reason.strip()}


def test_every_registered_layer_explains_its_numbers():
    assert unexplained(REGISTERED) == set() and not set(EXEMPT) & set(CASES)
    assert unexplained([*REGISTERED, "Unheard"]) == {"Unheard"}


class Run:
    """A network's values by the engine for one image, and what its layers read and own."""

    def __init__(self, network: Network, rng, data):
        self.network, self.parameters = network, parameters(network, rng, data)
        x = data(rng, 1, *network.input_shape)
        names = [n.name for n in network.nodes]
        found = by_engine(network, self.parameters, x, data(rng, 1, *network.output_shape), taps=names).values
        self.values = {INPUT: x[0], **{name: found[name][0] for name in names}}

    def read_by(self, node):
        own = {n.removeprefix(node.name + "."): p for n, p in self.parameters.items()
               if n.rpartition(".")[0] == node.name}
        return own, [self.values[name] for name in node.inputs]

    def definition(self, node):
        """The layer's values and its backward pass in float64, from what the engine gave it."""
        own, inputs = self.read_by(node)
        own = {name: p.astype(np.float64) for name, p in own.items()}
        y, backward = node.layer.define(own, *(x[None].astype(np.float64) for x in inputs))
        return y[0], lambda dy: backward(dy[None])


def somewhere(rng, shape):
    return tuple(int(rng.integers(n)) for n in shape)


def close(got, expected, scale=1.0):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("kind", [k for k in REGISTERED if k in CASES])
@settings(max_examples=12, deadline=None)
@given(data=st.data(), seed=seeds)
def test_terms_are_the_definition_and_what_the_engine_computed(kind, data, seed):
    case, rng = data.draw(CASES[kind]), np.random.default_rng(seed)
    run = Run(case.network, rng, integers if seed % 4 == 0 else normals)
    for node in case.network.nodes:
        (own, inputs), (y, backward) = run.read_by(node), run.definition(node)
        index = somewhere(rng, y.shape)
        made = node.layer.terms(index, own, *inputs)
        close(made.value, y[index], made.magnitude)
        engine = run.values[node.name]
        limit = made.bound + made.share * np.abs(engine).max()
        assert abs(made.value - float(engine[index])) <= limit
        assert made.share == 0 or isinstance(node.layer, L.Conv)

        # What is read is really there, and the derivatives are those of the definition.
        sensitive = [np.zeros(x.shape) for x in inputs]
        for of, at, x, derivative in zip(made.of, made.at, made.x, made.derivative, strict=True):
            if of == PADDING:
                assert x == 0
            else:
                assert x == inputs[of][tuple(at)]
                sensitive[of][tuple(at)] += derivative
        one = np.zeros(y.shape)
        one[index] = 1
        for got, expected in zip(sensitive, backward(one)[0], strict=True):
            close(got, expected[0])
        if made.factors is not None:
            close(made.terms, made.x * made.factors)
        if made.weights:
            name, at = made.weights
            np.testing.assert_array_equal(made.factors, own[name][tuple(at.T)])
        for step in made.steps:
            if step.parameter:
                assert step.value == own[step.parameter][step.index]


@pytest.mark.parametrize("kind", [k for k in REGISTERED if k in CASES])
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=seeds)
def test_who_reads_a_number_and_uses_a_parameter(kind, data, seed):
    case, rng = data.draw(CASES[kind]), np.random.default_rng(seed)
    run = Run(case.network, rng, normals)
    for node in case.network.nodes:
        (own, inputs), (y, backward) = run.read_by(node), run.definition(node)
        dy = rng.standard_normal(y.shape)
        dxs, gradients = backward(dy)
        of = int(rng.integers(len(inputs)))
        index = somewhere(rng, inputs[of].shape)
        outputs, derivatives = node.layer.derivatives(index, of, own, *inputs)
        assert len({*map(tuple, outputs.tolist())}) == len(outputs)
        close(derivatives @ dy[tuple(outputs.T)], dxs[of][0][index])
        assert set(gradients) == {n.removeprefix(node.name + ".") for n in trainable(run.network)
                                  if n.rpartition(".")[0] == node.name}
        for name, gradient in gradients.items():
            index = somewhere(rng, gradient.shape)
            uses = node.layer.uses(name, index, own, *inputs)
            close(uses.derivative @ dy[tuple(uses.outputs.T)], gradient[index], abs(gradient).max())


def test_winograd_is_within_its_bound_and_said():
    """64 channels of 3x3: the engine may run another algorithm, and the number says how far off it may be."""
    rng = np.random.default_rng(0)
    run = Run(Network.build((12, 12, 64), L.Conv(64, 3, padding=1)), rng, normals)
    (node,) = run.network.nodes
    own, inputs = run.read_by(node)
    engine = run.values[node.name]
    for _ in range(50):
        index = somewhere(rng, engine.shape)
        made = node.layer.terms(index, own, *inputs)
        assert made.share == 2e-5
        assert abs(made.value - float(engine[index])) <= made.bound + made.share * np.abs(engine).max()
    for other in (L.Conv(64, 3, 2), L.Conv(64, 5), L.Conv(64, 3, groups=2), L.Conv(16, 3), L.Conv(64, 3, dilation=2)):
        shape = (12, 12, 64)
        weight = np.zeros(other.parameters(shape)["weight"].shape, np.float32)
        assert other.terms((0, 0, 0), {"weight": weight}, np.zeros(shape, np.float32)).share == 0


def test_the_first_of_equal_numbers_wins():
    x = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]], np.float32)[..., None]
    made = L.MaxPool(2, 1, padding=1).terms((1, 1, 0), {}, x)
    assert tuple(made.at[made.winner]) == (0, 1, 0)
    made = L.MaxPool(2, 1, padding=1).terms((0, 0, 0), {}, -1 - x)
    assert made.value == -1 and made.of.tolist() == [PADDING] * 3 + [0]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), size=st.integers(1, 5), stride=st.integers(1, 4), dilation=st.integers(1, 3),
       padding=st.one_of(st.just("same"), st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_outputs_are_inputs_turned_round(n, size, stride, dilation, padding):
    (w,) = windows((n,), size, stride, padding if padding == "same" else [padding], dilation)
    for index in range(n):
        assert w.outputs(index, n) == [o for o in range(w.output_size(n)) if index in w.inputs(o)]


def test_the_base_layer_says_what_it_lacks():
    with pytest.raises(TypeError, match="does not say what a number of it is made of"):
        Layer().terms((0,), {})
    with pytest.raises(TypeError, match="does not say where it uses weight"):
        Layer().uses("weight", (0,), {}, np.zeros(1))
