"""The gradients of a traced image opened: sums that are the engine's gradients, and finite differences of the loss."""

import json

import numpy as np
import pytest
from test_trace import branching, made, picture, somewhere
from three_ways import nodes, trainable

import pellucid
from pellucid import layers as L
from pellucid import reference, zoo
from pellucid.explain import taps
from pellucid.network import INPUT, Network, Sequential

STEP = 1e-6


def loss_of(backward, changed=None, read=None):
    """The loss in float64 by the layers' definitions, of an image in float64.

    `changed` replaces parameters by name; `read` adds an array to what a node reads, by (node, number of its input).
    """
    model, changed, read = backward.bare, changed or {}, read or {}
    values = {INPUT: backward.trace["input"].value.astype(np.float64)[None]}
    for node in model.network.nodes:
        own = {n.removeprefix(node.name + "."): np.asarray(changed.get(n, p), np.float64)
               for n, p in model.parameters.items() if n.rpartition(".")[0] == node.name}
        inputs = [values[name] + read.get((node.name, of), 0) for of, name in enumerate(node.inputs)]
        values[node.name] = node.layer.define(own, *inputs)[0]
    logits = values[model.network.output]
    return logits[0, backward.target] if backward.label is None else reference.cross_entropy(logits, [backward.label])


def difference(backward, **moved):
    """The central difference of the loss; `moved` are functions of the step that give what `loss_of` takes."""
    high, low = (loss_of(backward, **{k: f(s) for k, f in moved.items()}) for s in (STEP, -STEP))
    return (high - low) / (2 * STEP)


def one(shape, index, step):
    array = np.zeros(shape)
    array[index] = step
    return array


def asked(backward_of, model, seed=0):
    trace = model.trace(picture(model, seed))
    return trace.backward(**backward_of)


OF = [{"label": 2}, {"target": 1}, {}]


@pytest.mark.parametrize("of", OF[:2], ids=str)
def test_a_weights_gradient_is_its_sum_over_positions(of):
    """For every trainable parameter: the engine's gradient, and a finite difference of the loss."""
    backward, rng = asked(of, made(branching())), np.random.default_rng(0)
    network = backward.bare.network
    for name in trainable(network):
        gradient, array = backward.parameter(name), backward.bare.parameters[name]
        index = somewhere(rng, gradient.shape)
        shared = gradient[index]
        size = np.abs(shared.numbers).sum()
        assert shared.value == gradient.value[index]
        assert abs(shared.total - shared.value) <= 1e-5 * size + 1e-7
        assert abs(shared.total - sum(s.product for s in shared)) <= 1e-9 * size
        measured = difference(backward, changed=lambda s, n=name, i=index, a=array: {n: a + one(a.shape, i, s)})
        assert shared.total == pytest.approx(measured, rel=1e-3, abs=1e-5 * max(size, 1))


def test_a_shared_weight_meets_an_input_at_each_position():
    backward = asked({"label": 0}, made(branching()))
    shared = backward.at("c2.weight[4,1,0,2]")  # group 2 of 2: channel 4 of its input
    assert len(shared) == 6 * 6
    for i, share in enumerate(shared):
        assert share.name == "c2" and share.index == (i // 6, i % 6, 4)
        y, x = share.index[0] - 2, share.index[1] + 2
        if y < 0 or x > 5:
            assert shared.met(i) is None and share.derivative == share.product == 0
        else:
            assert shared.met(i) == ("p1", (y, x, 4))
            assert share.derivative == backward.trace["p1"].value[y, x, 4]
        assert share.gradient == backward["c2"].value[share.index] == share.source.value
    text = str(shared)
    assert text.startswith("gradient of the cross entropy for the label '0' to c2.weight[4,1,0,2] = ")
    assert "arrived at" in text and "met" in text and "20 more, together" in text
    bias = backward.at("c2.bias[4]")
    assert len(bias) == 36 and bias.total == pytest.approx(backward["c2"].value[..., 4].sum(dtype=np.float64))
    assert len(backward.at("fc.weight[3,100]")) == len(backward.at("fc.bias[3]")) == 1
    assert json.loads(json.dumps(shared.to_json(3)))["left_out"]["count"] == 33


@pytest.mark.parametrize("of", OF[:1], ids=str)
def test_the_gradient_at_a_number_is_what_it_received(of):
    """For every value: the sum over the outputs that read it, the engine's gradient, and a finite difference."""
    backward, rng = asked(of, made(branching())), np.random.default_rng(1)
    network = backward.bare.network
    for name in backward.trace:
        for _ in range(2):
            index = somewhere(rng, network.shapes[name])
            received = backward[name][index]
            size = np.abs(received.numbers).sum()
            assert received.value == backward[name].value[index]
            assert abs(received.total - received.value) <= 1e-5 * size + 1e-7
            shape = (1, *network.shapes[name])
            readers = [(node.name, i) for node in network.nodes for i, n in enumerate(node.inputs) if n == name]
            kink = name == "r1" and backward.trace[name][index].value == 0  # zeros may tie for a pool's maximum
            if readers and not kink:
                measured = difference(backward, read=lambda s, r=readers, i=index, n=shape: {
                    reader: one(n, (0, *i), s) for reader in r})
                assert received.total == pytest.approx(measured, rel=1e-3, abs=1e-5 * max(size, 1))
            for share in received:
                assert share.product == share.derivative * share.gradient
                assert share.source.value == share.gradient
                assert share.name in {reader for reader, _ in readers}


def test_the_pass_begins_at_the_loss():
    model = made(branching(), classes=["a", "b", "c", "d"])
    trace = model.trace(picture(model))
    z = trace["out"].value.astype(np.float64)
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    by_label = trace.backward(label="c")
    assert by_label.loss == pytest.approx(-np.log(p[2])) and (by_label.label, by_label.target) == (2, None)
    np.testing.assert_allclose(by_label["out"].value, p - [0, 0, 1, 0], atol=1e-6)
    steps = by_label["out"][2].closing()
    assert [text for text, _ in steps] == ["probability", "target", "probability - target"]
    np.testing.assert_allclose([value for _, value in steps], [p[2], 1, p[2] - 1], atol=1e-6)
    by_logit = trace.backward("b")
    assert by_logit.loss == z[1] and by_logit["out"].value.tolist() == [0, 1, 0, 0]
    assert trace.backward().target == z.argmax() and repr(by_logit) == f"<Backward of the logit of 'b', {z[1]:.6g}>"


def test_max_pool_routing():
    """The whole gradient of an output goes to its winner; an input receives it from the windows that it won."""
    backward = asked({"label": 1}, made(branching()))
    pooled, values = backward["p1"], backward.trace["r1"].value
    wins = np.zeros(values.shape)
    for index in np.ndindex(pooled.shape):
        sent = pooled.sent(index)
        (winner,) = [s for s in sent if s.derivative]
        assert winner.product == pooled.value[index] and winner.derivative == 1
        assert values[winner.index] == backward.trace["p1"].value[index]
        wins[winner.index] += winner.product
    np.testing.assert_allclose(backward["r1"].value, wins, atol=1e-5)
    busiest = np.unravel_index(np.abs(wins).argmax(), wins.shape)
    received = backward["r1"][tuple(int(i) for i in busiest)]
    assert received.total == pytest.approx(wins[busiest]) and {s.name for s in received} == {"p1"}
    measured = difference(backward, read=lambda s: {("p1", 0): one((1, *values.shape), (0, *received.index), s)})
    assert received.total == pytest.approx(measured, rel=1e-3)
    corner = pooled.sent((0, 0, 0))
    assert "padding" in str(corner) and corner.to_json()["terms"][0]["to"] == corner[0].name == "padding"
    assert corner[0].source is None and corner[4].source.address == "r1[0,0,0]"


@pytest.mark.parametrize("of", OF, ids=str)
def test_the_identitys_share(of):
    """Each part is what the loss would do if only this reader of the fork saw another value."""
    backward, rng = asked(of, made(branching())), np.random.default_rng(2)
    found = backward.residual("sum")
    assert (found.name, found.fork) == ("sum", "p1")
    assert [(p.way, p.reader) for p in found.parts] == [("branch", "c2"), ("identity", "sum"), ("elsewhere", "cat")]
    np.testing.assert_allclose(sum(p.gradient for p in found.parts), found.gradient, atol=1e-5)
    np.testing.assert_array_equal(found.gradient, backward["p1"].value)
    np.testing.assert_allclose(found.way("identity"), backward["sum"].value, atol=1e-6)
    for part, of in zip(found.parts, (0, 1, 1), strict=True):
        assert part.norm == pytest.approx(np.linalg.norm(part.gradient)) == found.norms[part.way]
        for _ in range(4):
            index = somewhere(rng, part.gradient.shape)
            measured = difference(backward, read=lambda s, r=(part.reader, of), i=index: {
                r: one((1, *part.gradient.shape), (0, *i), s)})  # noqa: B023
            assert part.gradient[index] == pytest.approx(measured, rel=1e-3, abs=1e-5)
    assert str(found).splitlines()[0] == "sum adds what forks at p1; norms of the gradient there"
    assert json.loads(json.dumps(found.to_json()))["norms"]["whole"] == found.norms["whole"]


def test_the_identitys_share_where_the_shortcut_is_a_convolution():
    model = made(zoo.build("resnet20", input_shape=(16, 16, 3), classes=4))
    backward = asked({"label": 3}, model)
    adds = [n.name for n in model.network.nodes if isinstance(n.layer, L.Add)]
    assert len(adds) == 9
    for name in adds:
        found = backward.residual(name)
        total = np.abs(found.gradient).max()
        np.testing.assert_allclose(sum(p.gradient for p in found.parts), found.gradient, atol=2e-5 * total)
        assert {p.way for p in found.parts} <= {"identity", "branch"} and len(found.parts) == 2


def test_layers_that_hand_on_a_value_that_others_read():
    """The engine has one gradient for a value and the dropout that hands it on; their readers tell them apart."""
    network = nodes((6, 5, 4), ("c", L.Conv(4, 3, padding=1), "input"), ("d", L.Dropout(0.5), "c"),
                    ("t", L.Tanh(), "d"), ("s", L.Sigmoid(), "c"), ("sum", L.Add(), "t", "s"),
                    ("pool", L.GlobalAvgPool(), "sum"))
    backward = asked({"label": 1}, made(network))
    with pytest.raises(ValueError, match="hands on"):
        taps.gradients(backward.bare, backward.trace.image[None], backward.cotangent, ["d"])
    for name in ("d", "c", "t"):
        index = (2, 3, 1)
        assert backward[name][index].total == pytest.approx(float(backward[name].value[index]), rel=1e-5, abs=1e-9)
    tanh = backward.trace["t"].value.astype(np.float64)
    np.testing.assert_allclose(backward["d"].value, backward["t"].value * (1 - tanh**2), rtol=1e-4, atol=1e-7)


def test_chains_of_layers_that_hand_on():
    network = nodes((6, 5, 4), ("c", L.Conv(4, 3, padding=1), "input"), ("d", L.Dropout(0.5), "c"),
                    ("e", L.Dropout(0.5), "d"), ("same", L.AdaptiveAvgPool((6, 5)), "e"), ("t", L.Tanh(), "same"),
                    ("s", L.Sigmoid(), "c"), ("sum", L.Add(), "t", "s"), ("pool", L.GlobalAvgPool(), "sum"))
    backward = asked({"label": 1}, made(network))
    tanh = backward.trace["t"].value.astype(np.float64)
    for name in ("d", "e", "same"):
        with pytest.raises(ValueError, match="hands on"):
            taps.gradients(backward.bare, backward.trace.image[None], backward.cotangent, [name])
        np.testing.assert_allclose(backward[name].value, backward["t"].value * (1 - tanh**2), rtol=1e-4, atol=1e-7)


def test_a_softmax_at_the_end_belongs_to_the_loss():
    body = L.Conv(3, 3), L.GlobalMaxPool(), L.Dense(4)
    plain = made(Network.build((6, 6, 1), Sequential(*body)))
    network = Network.build((6, 6, 1), Sequential(*body, L.Softmax()))
    ended = pellucid.Model(network, None, preprocessing=plain.preprocessing, classes=["a", "b", "c", "d"])
    ended.load_parameters(plain.parameters)
    image = picture(plain)
    for of in ({"label": 1}, {"target": 1}):
        one_, other = plain.trace(image).backward(**of), ended.trace(image).backward(**of)
        assert one_.loss == pytest.approx(other.loss)
        for name in ("conv1", "dense1", INPUT):
            np.testing.assert_allclose(one_[name].value, other[name].value, atol=1e-6)
    with pytest.raises(ValueError, match="the softmax that belongs to the loss; gradients begin at 'dense1'"):
        other["softmax1"]
    trace = ended.trace(image)
    assert "the probability of 'b'" in str(trace["softmax1"][1]) and "the score of 'b'" in str(trace["dense1"][1])


def test_signals_and_vectors():
    for network in (Network.build((9, 2), Sequential(L.Conv(3, 3, stride=2, padding="same"), L.MaxPool(2, 1),
                                                     L.Flatten(), L.Dense(3))),
                    Network.build((6,), Sequential(L.Dense(5), L.Tanh(), L.Dense(3)))):
        model = made(network)
        model.preprocessing = None
        x = np.random.default_rng(0).standard_normal(network.input_shape).astype(np.float32)
        backward = model.trace(x).backward(label=1)
        for name in backward.trace:
            index = tuple(n // 2 for n in network.shapes[name])
            received = backward[name][index]
            assert received.total == pytest.approx(received.value, rel=1e-4, abs=1e-6)
        for name in trainable(network):
            index = tuple(n // 2 for n in backward.parameter(name).shape)
            shared = backward.parameter(name)[index]
            array = model.parameters[name]
            measured = difference(backward, changed=lambda s, n=name, i=index, a=array: {n: a + one(a.shape, i, s)})
            assert shared.total == pytest.approx(shared.value, rel=1e-4, abs=1e-6)
            assert shared.total == pytest.approx(measured, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("ask", "message"), [
    (lambda b: b.trace.backward(1, label=2), "a target or a label, not both"),
    (lambda b: b.trace.backward(4), "from 0 to 3"), (lambda b: b.trace.backward(label="z"), "no class is called 'z'"),
    (lambda b: b["nothing"], "no layer is called"), (lambda b: b.parameter("c1.wait"), "no trainable parameter is"),
    (lambda b: b.parameter("n1.running_mean"), "parameter is called 'n1.running_mean'; there are c1.weight"),
    (lambda b: b.at("c1.weight[0,0,0]"), r"c1.weight has shape \(6, 3, 3, 3\)"), (lambda b: b.at("c1[0,0]"), "c1 has"),
    (lambda b: b.residual("c1"), "'c1' is Conv, not an Add; there are sum"),
    (lambda b: b.residual("input"), "'input' is the input, not an Add"),
    (lambda b: b["input"].sent((0, 0, 0)), "made of nothing"),
])
def test_questions_that_have_no_answer(ask, message):
    backward = asked({}, made(branching()))
    with pytest.raises(ValueError, match=message) as refused:
        ask(backward)
    assert "\n" not in str(refused.value)


def test_a_network_of_maps_has_values_but_no_classes():
    model = made(Network.build((6, 6, 1), L.Conv(2, 3)))
    trace = model.trace(picture(model))
    assert trace["conv1"][1, 1, 1].total == pytest.approx(trace["conv1"][1, 1, 1].value, rel=1e-5)
    with pytest.raises(ValueError, match="classifies nothing"):
        trace.backward()
