"""The graph: what it computes from shapes alone, what it refuses; the networks of the zoo."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import geometry, zoo
from pellucid.layers import Add, AvgPool, BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, ReLU
from pellucid.layers import Concat as ConcatLayer
from pellucid.network import Concat, Network, Node, Residual, Sequential

GREY = (28, 28, 1)


def chain(shape, *layers):
    return Network.build(shape, Sequential(*layers))


# Counts.


@pytest.mark.parametrize("shape", [(784,), GREY])
def test_lecture_first_dense_layer(shape):
    body = Sequential(Dense(16)) if len(shape) == 1 else Sequential(Flatten(), Dense(16))
    net = Network.build(shape, body)
    assert net.parameter_counts["dense1"] == 784 * 16 + 16 == 12_560
    assert {k: p.shape for k, p in net.parameters().items()} == {"dense1.weight": (16, 784), "dense1.bias": (16,)}
    assert net.macs["dense1"] == 784 * 16


def test_lecture_three_million_parameters():
    net = zoo.build("mlp", input_shape=(426, 426, 1), classes=10, hidden=(16, 16))
    assert net.parameter_count == 2_904_074
    assert list(net.parameter_counts.values()) == [0, 426 * 426 * 16 + 16, 0, 16 * 16 + 16, 0, 16 * 10 + 10]


def test_lenet_by_hand():
    net = zoo.build("lenet", input_shape=GREY, classes=10)
    pool1, pool2 = f"{MaxPool.short}1", f"{MaxPool.short}2"
    assert [n.name for n in net.nodes] == [
        "conv1", "relu1", pool1, "conv2", "relu2", pool2, "flatten1", "dense1", "relu3", "dense2",
    ]
    assert net.shapes["input"] == GREY
    assert [net.shapes[n] for n in ("conv1", pool1, "conv2", pool2, "flatten1", "dense1", "dense2")] == [
        (28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64), (3136,), (128,), (10,),
    ]
    assert net.output_shape == (10,)
    assert {k: p.shape for k, p in net.parameters().items()} == {
        "conv1.weight": (32, 1, 3, 3), "conv1.bias": (32,), "conv2.weight": (64, 32, 3, 3), "conv2.bias": (64,),
        "dense1.weight": (128, 3136), "dense1.bias": (128,), "dense2.weight": (10, 128), "dense2.bias": (10,),
    }
    assert net.parameter_count == 32 * 10 + 64 * 289 + 128 * 3137 + 10 * 129
    assert sum(net.macs.values()) == 28 * 28 * 32 * 9 + 14 * 14 * 64 * 32 * 9 + 3136 * 128 + 128 * 10
    assert net.activation_bytes["conv1"] == 28 * 28 * 32 * 4
    fields = net.receptive_fields
    assert [f.size for f in fields[pool2]] == [10, 10] and [f.stride for f in fields[pool2]] == [4, 4]
    assert fields["dense1"] is None and fields["relu3"] is None


def test_running_statistics_are_parameters_but_not_counted():
    net = chain((8, 8, 3), Conv(4, 3, bias=False), BatchNorm())
    assert net.parameter_count == 4 * 3 * 9 + 4 + 4
    statistics = [k for k, p in net.parameters().items() if not p.trainable]
    assert [k.split(".")[-1] for k in statistics] == ["running_mean", "running_var"]


def test_a_signal_and_a_feature_vector():
    net = Network.build((20, 2), Sequential(
        conv1=Conv(4, 5, stride=2), pool1=MaxPool(2), flatten=Flatten(), dense=Dense(3),
    ))
    assert net.shapes["conv1"] == (8, 4) and net.shapes["pool1"] == (4, 4) and net.output_shape == (3,)
    assert [f.size for f in net.receptive_fields["pool1"]] == [7]
    assert chain((7,), ReLU(), Dense(2)).receptive_fields == {"input": (), "relu1": (), "dense1": None}


# Builders.


def basic_block(filters, stride=1, **shortcut):
    return Residual(
        Sequential(
            conv1=Conv(filters, 3, stride, 1, bias=False), bn1=BatchNorm(), relu=ReLU(),
            conv2=Conv(filters, 3, 1, 1, bias=False), bn2=BatchNorm(),
        ),
        **shortcut,
    )  # fmt: skip


def test_residual_blocks_with_the_names_of_torchvision():
    down = Sequential(**{"0": Conv(8, 1, 2, bias=False), "1": BatchNorm()})
    net = Network.build((16, 16, 3), Sequential(
        conv1=Conv(4, 3, 1, 1),
        layer1=Sequential(**{"0": basic_block(4)}),
        layer2=Sequential(**{"0": basic_block(8, 2, downsample=down), "1": basic_block(8)}),
        pool=GlobalAvgPool(), fc=Dense(10),
    ))
    add = net.node("layer2.0.add")
    assert isinstance(add.layer, Add) and add.inputs == ("layer2.0.bn2", "layer2.0.downsample.1")
    assert net.node("layer1.0.add").inputs == ("layer1.0.bn2", "conv1")
    assert net.node("layer2.0.conv1").inputs == net.node("layer2.0.downsample.0").inputs == ("layer1.0.add",)
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var", "layer1.0.bn1.weight"} <= set(
        net.parameters()
    )
    assert net.shapes["layer2.1.add"] == (8, 8, 8)
    sizes = {k: f[0].size for k, f in net.receptive_fields.items() if f}
    assert sizes["conv1"] == 3 and sizes["layer1.0.add"] == 7 and sizes["layer2.0.add"] == 13
    assert sizes["layer2.1.add"] == 21


def test_automatic_names_count_within_each_block():
    net = Network.build((8, 8, 2), Sequential(
        Conv(2, 1), Residual(Conv(2, 3, padding=1)), Sequential(ReLU(), Conv(2, 1)), Conv(2, 1), Sequential(ReLU()),
        Residual(Residual(ReLU()), Conv(2, 1)), last=Sequential(), end=ReLU(),
    ))
    assert [n.name for n in net.nodes] == [
        "conv1", "residual1.conv1", "residual1.add", "block1.relu1", "block1.conv1", "conv2", "block2.relu1",
        "residual2.residual1.relu1", "residual2.residual1.add", "residual2.shortcut", "residual2.add", "end",
    ]
    assert net.node("end").inputs == ("residual2.add",)


def test_concat_stacks_channels():
    net = Network.build((9, 9, 3), Sequential(Concat(
        Conv(4, 1), Sequential(Conv(2, 1), Conv(5, 5, padding=2)), Sequential(), pooled=MaxPool(3, 1, 1),
    ), Conv(1, 1)))
    join = net.node("concat1.concat")
    assert isinstance(join.layer, ConcatLayer)
    assert join.inputs == ("concat1.conv1", "concat1.branch1.conv2", "input", "concat1.pooled")
    assert net.shapes["concat1.concat"] == (9, 9, 4 + 5 + 3 + 3)
    assert [f.size for f in net.receptive_fields["conv1"]] == [5, 5]
    assert [f.offset for f in net.receptive_fields["conv1"]] == [-2, -2]


def test_one_layer_is_a_network():
    assert Network.build((4,), Dense(2)).nodes == (Node("dense1", Dense(2), ("input",)),)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Sequential(ReLU), r"write ReLU\(\)"),
    (lambda: Sequential([ReLU()]), "one by one"),
    (lambda: Sequential(3), "got 3"),
    (lambda: Residual("body"), "got 'body'"),
    (lambda: Residual(ReLU(), ReLU(), other=ReLU()), "one shortcut, got shortcut, other"),
    (lambda: Concat(ReLU()), "two or more branches, got 1"),
    (lambda: Network.build(GREY, None), "got None"),
    (lambda: Network.build(GREY, Sequential()), "at least one layer"),
    (lambda: Network.build(GREY, Sequential(Conv(2, 3), conv1=ReLU())), "'conv1': two layers"),
    (lambda: Network.build(GREY, Sequential(input=ReLU())), "reserved"),
    (lambda: Network.build(GREY, Sequential(Add())), "'add1'.*two or more inputs, got 1"),
])
def test_builders_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Receptive fields, from the definition.

sliding = st.one_of(
    st.builds(lambda k, s, p, d: Conv(1, k, s, p, d), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2),
              st.integers(1, 3)),
    st.builds(lambda k, s: MaxPool(k, s), st.integers(1, 3), st.integers(1, 3)),
    st.builds(lambda k: AvgPool(k), st.integers(1, 3)),
    st.just(ReLU()), st.just(BatchNorm()),
)  # fmt: skip


def seen(net, name, position):
    """Input positions that position `position` of a node on one axis depends on, padding included: from the taps."""
    if name == "input":
        return {position}
    node = net.node(name)
    (window,) = node.layer.windows(net.shapes[node.inputs[0]])
    below = set(window.inputs(position))
    return set().union(*(seen(net, i, p) for i in node.inputs for p in below))


@settings(max_examples=60, deadline=None)
@given(st.lists(sliding, min_size=1, max_size=4), st.integers(20, 60))
def test_receptive_field_of_a_stack_is_what_its_taps_reach(layers, length):
    try:
        net = chain((length, 1), *layers)
    except ValueError:
        return  # the stack leaves nothing of the input: another test
    (field,) = net.receptive_fields[net.output]
    for position in (0, 1, net.output_shape[0] - 1):
        reached = seen(net, net.output, position)
        assert (min(reached), max(reached)) == (field.covers(position).start, field.covers(position).stop - 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(sliding, min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2))
def test_branches_of_different_stride_are_covered_tightly(layers, size, dilation, padding):
    try:
        long = chain((40, 1), *layers)
    except ValueError:
        return
    # A second branch that arrives at the same number of positions with stride 1.
    reach = 40 + 2 * padding - long.output_shape[0] + 1
    if reach < 1:
        return
    net = Network.build((40, 1), Concat(Sequential(*layers), Conv(1, reach, padding=padding)))
    (field,) = net.receptive_fields["concat"]
    branches = net.node("concat").inputs
    slack = []
    for position in range(net.output_shape[0]):
        reached = set().union(*(seen(net, b, position) for b in branches))
        cover = field.covers(position)
        assert cover.start <= min(reached) and max(reached) < cover.stop
        slack.append((min(reached) - cover.start, cover.stop - 1 - max(reached)))
    assert min(s[0] for s in slack) == min(s[1] for s in slack) == 0  # no position would be left if it were smaller
    if len({net.receptive_fields[b][0].stride for b in branches}) == 1:
        assert set(slack) == {(0, 0)}


def test_axes_are_kept_apart():
    net = chain((30, 40, 1), Conv(1, (3, 5), (2, 1), padding=((0, 0), (3, 1))), MaxPool((2, 1)))
    rows, columns = net.receptive_fields[net.output]
    assert rows == geometry.ReceptiveField(size=5, stride=4, offset=0)
    assert columns == geometry.ReceptiveField(size=5, stride=1, offset=-3)


# What is refused.


def nodes(*triples):
    return tuple(Node(name, layer, inputs) for name, layer, inputs in triples)


@pytest.mark.parametrize(("shape", "graph", "output", "message"), [
    (GREY, nodes(("a", ReLU(), ("b",))), "a", "'a'.* reads 'b', which does not exist; .*input"),
    (GREY, nodes(("a", ReLU(), ("b",)), ("b", ReLU(), ("input",))), "a", "'a'.* reads 'b', which comes after it"),
    (GREY, nodes(("a", Add(), ("input", "b")), ("b", ReLU(), ("a",))), "b", "'a'.* comes after it.*cycles"),
    (GREY, nodes(("a", ReLU(), ("a",))), "a", "'a'.* reads its own output"),
    (GREY, nodes(("a", ReLU(), ("input",)), ("a", ReLU(), ("a",))), "a", "'a': two layers"),
    (GREY, nodes(("input", ReLU(), ("input",))), "input", "'input': this name is reserved"),
    (GREY, nodes(("", ReLU(), ("input",))), "", "name of a layer must be letters.*got ''"),
    (GREY, nodes(("a-b", ReLU(), ("input",))), "a-b", "got 'a-b'"),
    (GREY, nodes(("a..b", ReLU(), ("input",))), "a..b", "single dots"),
    (GREY, nodes((".a", ReLU(), ("input",))), ".a", "single dots"),
    (GREY, nodes(("a\n", ReLU(), ("input",))), "a\n", "letters"),
    (GREY, nodes(("a" * 201, ReLU(), ("input",))), "a", "at most 200"),
    (GREY, nodes((None, ReLU(), ("input",))), "a", "got None"),
    (GREY, nodes(("a", "relu", ("input",))), "a", "'a': expected a layer"),
    (GREY, nodes(("a", ReLU(), "input")), "a", r"'a' \(ReLU\): inputs must be a tuple"),
    (GREY, nodes(("a", ReLU(), ("input", "input"))), "a", "'a'.* takes 1 input, got 2"),
    (GREY, nodes(("a", ReLU(), ())), "a", "'a'.* takes 1 input, got 0"),
    (GREY, nodes(("a", Add(), ("input",))), "a", "'a'.* takes two or more inputs, got 1"),
    (GREY, nodes(("a", Conv(2, 3), ("input",)), ("b", Add(), ("a", "input"))), "b", r"'b' \(Add\)"),
    (GREY, nodes(("a", MaxPool(2), ("input",)), ("b", ConcatLayer(), ("a", "input"))), "b", r"'b' \(Concat\)"),
    (GREY, nodes(("a", ReLU(), ("input",)), ("b", ReLU(), ("input",))), "b", "'a'.*nothing reads its output"),
    (GREY, nodes(("a", ReLU(), ("input",))), "z", "output must be the name of a layer, got 'z'; there are a"),
    (GREY, nodes(("a", ReLU(), ("input",))), "input", "output must be the name of a layer"),
    (GREY, nodes(("a", ReLU(), ("input",))), ["a"], "output must be the name of a layer"),
    (GREY, (), "a", "at least one layer"),
    (GREY, [ReLU()], "a", "needs a list of Nodes"),
    (GREY, 5, "a", "needs a list of Nodes"),
    (GREY, nodes(("a", Dense(2), ("input",))), "a", r"'a' \(Dense.*28, 28, 1"),
    ((5,), nodes(("a", Conv(2, 3), ("input",))), "a", r"'a' \(Conv\).*\(5,\)"),
    ((3, 8, 1), nodes(("a", Conv(2, 5), ("input",))), "a", r"'a' \(Conv 5x5.*\(3, 8, 1\)"),
    ((28, 0, 1), nodes(("a", ReLU(), ("input",))), "a", "network's input .*positive integers"),
    ((28.0, 28, 1), nodes(("a", ReLU(), ("input",))), "a", "positive integers"),
    ((True, 28, 1), nodes(("a", ReLU(), ("input",))), "a", "positive integers"),
    ((1, 2, 3, 4), nodes(("a", ReLU(), ("input",))), "a", r"\(H, W, C\)"),
    ("abc", nodes(("a", ReLU(), ("input",))), "a", r"\(H, W, C\)"),
    (None, nodes(("a", ReLU(), ("input",))), "a", "got None"),
    ((2**16, 2**16, 1), nodes(("a", ReLU(), ("input",))), "a", "4,294,967,296 elements"),
    ((2**10, 2**10, 1), nodes(("a", Conv(2**12, 1), ("input",))), "a", "'a'.* its output would have 4,294,967,296"),
    ((8, 8, 1), nodes(("a", Conv(2, None), ("input",))), "a", r"'a' \(Conv\): size .* got None"),
    ((2**20,), nodes(("a", Dense(2**12), ("input",))), "a", "'a'.* weight would have 4,294,967,296"),
    ((8, 8, 1), nodes(("a", Conv(2, 3, padding=2**40), ("input",))), "a", "'a'.*elements"),
])
def test_network_refuses(shape, graph, output, message):
    with pytest.raises(ValueError, match=message):
        Network(shape, graph, output)


def test_an_empty_output_names_the_layer_and_the_sizes():
    with pytest.raises(ValueError, match=r"'third'.*\(1, 1, 4\).*\(5, 5, 4\)"):
        Network.build((5, 5, 4), Sequential(MaxPool(2), MaxPool(2), third=MaxPool(2)))
    with pytest.raises(ValueError, match=r"'third' \(Conv 2x2\).*\(0, 0, 1\) would be empty.*\(1, 1, 4\).*\(5, 5, 4\)"):
        Network.build((5, 5, 4), Sequential(MaxPool(2), MaxPool(2), third=Conv(1, 2)))


def test_too_many_layers():
    with pytest.raises(ValueError, match="at most 10,000 layers, got 10,001"):
        Network((1,), tuple(Node(f"n{i}", ReLU()) for i in range(10_001)))


def test_unknown_layer_lists_the_known():
    with pytest.raises(ValueError, match="'conv9'; there are conv1, relu1, "):
        zoo.build("lenet").node("conv9")


# A value.


def test_networks_are_values():
    net, same = zoo.build("lenet"), zoo.build("lenet")
    assert net == same and hash(net) == hash(same) and net != zoo.build("lenet", classes=9)
    assert copy.deepcopy(net) == net
    function, arguments = net.__reduce__()
    assert function(*arguments) == net
    with pytest.raises(AttributeError):
        net.output = "conv1"
    with pytest.raises(TypeError):
        net.shapes["conv1"] = (1,)


# The zoo.


def test_zoo_names_and_errors():
    assert {"lenet", "mlp"} <= set(zoo.names()) and zoo.names() == sorted(zoo.names())
    with pytest.raises(ValueError, match="'alexnot'; there are .*lenet"):
        zoo.build("alexnot")
    with pytest.raises(ValueError, match="lenet5 has no option depth; it has none"):
        zoo.build("lenet5", depth=3)
    with pytest.raises(ValueError, match="mlp has no option size; it has hidden"):
        zoo.build("mlp", size=3)
    with pytest.raises(ValueError, match="hidden must be a list"):
        zoo.build("mlp", hidden=16)
    with pytest.raises(ValueError, match="classes must be a positive integer, got 0"):
        zoo.build("lenet", classes=0)
    with pytest.raises(ValueError, match="pool2'.*3, 3, 1"):
        zoo.build("lenet", input_shape=(3, 3, 1))


def test_mlp_sizes():
    assert zoo.build("mlp", hidden=()).parameter_count == 7850
    assert zoo.build("mlp", hidden=(5,), classes=2).parameter_count == 785 * 5 + 12


@pytest.mark.parametrize("name, parameters, macs", [
    ("vgg16", 138_357_544, 15_470_264_320), ("resnet50", 25_557_032, 4_089_184_256),  # as published, for 224x224
    ("cifar_vgg", 2_332_106, 171_643_904), ("cifar_resnet18", 11_173_962, 555_422_720),
])
def test_zoo_counts(name, parameters, macs):
    net = zoo.build(name)
    assert (net.parameter_count, sum(net.macs.values())) == (parameters, macs)


def test_resnet_names_are_torchvisions():
    names = list(zoo.build("resnet50").parameters())
    assert names[:2] == ["conv1.weight", "bn1.weight"] and "layer4.2.bn3.running_var" in names
    assert "layer1.0.downsample.1.bias" in names and names[-2:] == ["fc.weight", "fc.bias"]
