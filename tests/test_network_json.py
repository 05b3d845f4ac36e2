"""Networks as JSON: both ways without loss, and nothing but ValueError for what is no network."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.layers import (
    LAYERS,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Clip,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    Pad,
    PadChannels,
    ReLU,
    Softmax,
    TakeChannels,
)
from pellucid.network import Concat, Network, Node, Residual, Sequential

pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))
shrinking = st.one_of(
    st.builds(lambda f, k, s, p, b: Conv(f, k, s, p, bias=b), st.integers(1, 20), st.integers(1, 3),
              st.sampled_from([1, 2, (2, 1)]), st.one_of(st.integers(0, 2), st.just("same"), st.tuples(pairs, pairs)),
              st.booleans()),
    st.builds(MaxPool, st.integers(1, 2)), st.just(GlobalAvgPool()),
)  # fmt: skip
keeping = st.recursive(
    st.one_of(
        st.builds(lambda f, k: Conv(f, k, padding="same"), st.integers(1, 20), st.integers(1, 4)),
        st.just(ReLU()), st.just(BatchNorm(eps=1e-3)), st.floats(0, 0.9).map(Dropout),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda p: Sequential(*p)),
        st.lists(inner, min_size=1, max_size=2).map(lambda p: Residual(Sequential(*p, Conv(4, 1)), Conv(4, 1))),
        st.lists(inner, min_size=2, max_size=3).map(lambda p: Concat(*p)),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(keeping, keeping, shrinking), max_size=4), st.sampled_from([(16, 16, 3), (9, 12, 1)]))
def test_json_both_ways(parts, shape):
    try:
        net = Network.build(shape, Sequential(ReLU(), *parts))
    except ValueError:
        return  # refused with the right kind of error; nothing to write
    data = net.to_json()
    assert json.loads(json.dumps(data)) == data
    read = Network.from_json(data)
    assert read == net and read.shapes == net.shapes and read.to_json() == data
    assert read.receptive_fields == net.receptive_fields and list(read.parameters()) == list(net.parameters())


def test_every_kind_of_layer_survives_json():
    def smallest(kind):
        return {"Conv": lambda: Conv(2, (3, 1)), "MaxPool": lambda: MaxPool(2), "AvgPool": lambda: AvgPool(2),
                "ChannelShuffle": lambda: ChannelShuffle(2), "Clip": lambda: Clip(0, 6),
                "Pad": lambda: Pad(((1, 0), (2, 1))),
                "AdaptiveAvgPool": lambda: AdaptiveAvgPool(2), "PadChannels": lambda: PadChannels(3),
                "TakeChannels": lambda: TakeChannels(((0, 1), (1, 0))),
                "Dense": lambda: Dense(3)}.get(kind.__name__, kind)()  # fmt: skip

    ours = [k for k in LAYERS.values() if k.__module__.startswith("pellucid.")]
    assert len(ours) >= 18
    for kind in ours:
        layer = smallest(kind)
        inputs = ("input", "input") if layer.inputs is None else ("input",)
        net = Network((8,) if kind is Dense else (8, 8, 2), (Node("x", layer, inputs),))
        assert Network.from_json(json.loads(json.dumps(net.to_json()))) == net


def damaged(change):
    data = Network.build(
        (8, 8, 1), Sequential(Conv(2, 3), ReLU(), Flatten(), Dense(2), Softmax())
    ).to_json()
    change(data)
    return data


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d.update(extra=1), "exactly the keys .*extra"),
    (lambda d: d.pop("output"), "exactly the keys"),
    (lambda d: d.update(nodes={}), "nodes must be a list"),
    (lambda d: d.update(nodes=[]), "list of 1 to 10,000"),
    (lambda d: d.update(nodes=d["nodes"] * 5000), "10,000 layers, got a list of 25,000"),
    (lambda d: d.update(input_shape="8"), "input_shape must be a list"),
    (lambda d: d.update(input_shape=[8, 8, None]), "positive integers"),
    (lambda d: d.update(input_shape=[10**5000, 8, 1]), "positive integers"),
    (lambda d: d.update(input_shape=nested(100_000)), r"\(H, W, C\)|positive integers"),
    (lambda d: d.update(output=None), "output's name"),
    (lambda d: d.update(output=""), "output's name"),
    (lambda d: d["nodes"].insert(0, "conv"), "a layer must be an object"),
    (lambda d: d["nodes"][0].update(weights=[1]), "a layer must be an object with exactly"),
    (lambda d: d["nodes"][0].update(name=3), "name of a layer .*got 3"),
    (lambda d: d["nodes"][0].update(kind="Convolution"), "'conv1': unknown layer 'Convolution'; known are"),
    (lambda d: d["nodes"][0].update(kind=["Conv"]), "unknown layer"),
    (lambda d: d["nodes"][0].update(inputs="input"), "'conv1': inputs must be a list"),
    (lambda d: d["nodes"][0].update(inputs=[1]), "'conv1': inputs must be a list"),
    (lambda d: d["nodes"][0].update(fields=[]), "'conv1': fields must be an object"),
    (lambda d: d["nodes"][0]["fields"].update(colour="red"), "'conv1': Conv has no field 'colour'"),
    (lambda d: d["nodes"][0]["fields"].pop("filters"), "'conv1': Conv"),
    (lambda d: d["nodes"][0]["fields"].update(filters="2"), "'conv1'"),
    (lambda d: d["nodes"][0]["fields"].update(filters=2.5), "'conv1'"),
    (lambda d: d["nodes"][0]["fields"].update(filters=0), "'conv1'"),
    (lambda d: d["nodes"][0]["fields"].update(filters=10**400), "'conv1'.*enormous integer"),
    (lambda d: d["nodes"][0]["fields"].update(size=nested(100_000)), "'conv1'.*impossible value"),
    (lambda d: d["nodes"][0]["fields"].update(size=[3] * 1000), "'conv1'.*impossible value"),
    (lambda d: d["nodes"][0]["fields"].update(size={"h": 3}), "'conv1'.*impossible value"),
    (lambda d: d["nodes"][0]["fields"].update(stride=float("nan")), "'conv1'.*impossible value"),
    (lambda d: d["nodes"][0]["fields"].update(stride=0), "'conv1'"),
    (lambda d: d["nodes"][0]["fields"].update(padding=-1), "'conv1'"),
    (lambda d: d["nodes"][0]["fields"].update(groups=7), "'conv1'"),
    (lambda d: d["nodes"][0]["fields"].update(init="magic"), "'conv1'"),
    (lambda d: d["nodes"][3]["fields"].update(units=2**31), "'dense1'.*elements"),
])
def test_hostile_json_is_refused(change, message):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message):
        Network.from_json(damaged(change))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("data", [None, 3, "network", [], {}, [{}], {1: 2}, float("nan")])
def test_json_that_is_no_network(data):
    with pytest.raises(ValueError, match="exactly the keys"):
        Network.from_json(data)


scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 5), st.just(10**30), st.floats(), st.text(max_size=4),
                    st.sampled_from(["same", "he", "input"]))
values = st.recursive(scalars, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.text(max_size=3), v)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(LAYERS)), st.data())
def test_any_value_in_any_field_gives_a_network_or_a_value_error(kind, data):
    fields = dict({"Conv": {"filters": 2, "size": 3}, "Dense": {"units": 2}}.get(kind, {}))
    fields |= {"size": 2} if kind in ("MaxPool", "AvgPool") else {}
    for field in LAYERS[kind].__dataclass_fields__:
        if data.draw(st.integers(0, 2)) == 0:
            fields[field] = data.draw(values)
    shape = data.draw(st.sampled_from([[6], [6, 2], [6, 6, 2]]))
    inputs = ["input"] * (1 if LAYERS[kind].inputs == 1 else 2)
    node = {"name": "x", "kind": kind, "inputs": inputs, "fields": fields}
    try:
        net = Network.from_json({"input_shape": shape, "nodes": [node], "output": "x"})
    except ValueError:
        return
    assert min(net.output_shape) > 0 and net.macs["x"] >= 0 and "x" in net.summary()
    assert Network.from_json(net.to_json()) == net


def test_ten_thousand_layers_do_not_take_long():
    net = Network((4, 4, 1), tuple(Node(f"n{i}", ReLU(), (f"n{i - 1}" if i else "input",)) for i in range(10_000)))
    start = time.perf_counter()
    assert Network.from_json(net.to_json()) == net
    assert len(net.summary().splitlines()) > 10_000
    assert time.perf_counter() - start < 10
