"""The table: the lecture's counts, and that every number in it is the network's."""

import pytest

from pellucid import zoo
from pellucid.layers import BatchNorm, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, ReLU
from pellucid.network import Network, Residual, Sequential

HEADINGS = ["layer", "kind", "output", "kernel", "parameters", "multiply-adds", "receptive field", "memory"]


def rows(net):
    """The table as {name: {heading: text}}, cut at the columns the header line gives."""
    lines = net.summary().splitlines()
    header = lines[0]
    # Text columns start below their heading; number columns end below it.
    starts = [header.index(h) for h in HEADINGS[:4]]
    ends = [header.index(h) + len(h) for h in HEADINGS[4:]]
    table = {}
    for line in lines[2:]:
        if not line:
            break
        if set(line) == {"-"}:
            continue
        line = line.ljust(len(header))
        left = [line[a:b].strip() for a, b in zip(starts[:3], starts[1:], strict=True)]
        # The kernel is all that is between its heading and the first number.
        right = [line[a:b].strip() for a, b in zip(ends[:3], ends[1:], strict=True)]
        middle = line[starts[3] : ends[0]]
        kernel, _, number = middle.rpartition("  ")
        table[left[0]] = dict(zip(HEADINGS, [*left, kernel.strip(), number.strip(), *right], strict=True))
    return table


def test_lecture_numbers_are_printed():
    table = rows(Network.build((784,), Dense(16)))
    assert table["dense1"]["parameters"] == table["total"]["parameters"] == "12,560"
    assert table["dense1"]["multiply-adds"] == "12,544"
    assert table["dense1"]["output"] == "16" and table["dense1"]["receptive field"] == "all"
    table = rows(zoo.build("mlp", input_shape=(426, 426, 1), classes=10, hidden=(16, 16)))
    assert table["total"]["parameters"] == "2,904,074"
    assert [table[f"dense{i}"]["parameters"] for i in (1, 2, 3)] == ["2,903,632", "272", "170"]


def test_a_matrix_says_what_it_maps():
    assert "784 -> 16" in Network.build((784,), Dense(16)).summary()


def test_lenet_row_by_row():
    net = zoo.build("lenet", input_shape=(28, 28, 1), classes=10)
    table = rows(net)
    assert list(table) == ["input", *(n.name for n in net.nodes), "total"]
    assert list(table["conv2"].values()) == [
        "conv2", "Conv", "14x14x64", "3x3 p1", "18,496", "3,612,672", "8x8", "50,176",
    ]
    assert "3x3" in table["conv2"]["kernel"]
    for name, row in table.items():
        if name in ("input", "total"):
            continue
        assert row["parameters"] == f"{net.parameter_counts[name]:,}"
        assert row["multiply-adds"] == f"{net.macs[name]:,}"
        assert row["memory"] == f"{net.activation_bytes[name]:,}"
    assert table["input"]["output"] == "28x28x1"
    assert table["total"]["parameters"] == f"{net.parameter_count:,}"
    assert table["total"]["multiply-adds"] == f"{sum(net.macs.values()):,}"
    assert table["total"]["memory"] == f"{sum(net.activation_bytes.values()):,}"


def test_running_statistics_are_told_apart():
    net = Network.build((8, 8, 3), Sequential(Conv(4, 3), BatchNorm()))
    assert rows(net)["total"]["parameters"] == f"{4 * 28 + 8}"
    assert "8 running statistics" in net.summary()
    assert "statistics" not in zoo.build("lenet").summary()


def deep(name):
    block = Residual(
        Sequential(conv1=Conv(2048, (3, 1), 1, ((1, 1), (0, 0)), dilation=1, groups=32), bn1=BatchNorm(), relu=ReLU()),
        downsample=Sequential(**{"0": Conv(2048, 1)}),
    )
    return Network.build((224, 224, 3), Sequential(
        Conv(1024, 7, padding=3), MaxPool((3, 3), 1, 1), **{name: Sequential(**{"0": block})}, pool=GlobalAvgPool(),
        fc=Dense(100_000),
    ))  # fmt: skip


@pytest.mark.parametrize("net", [
    zoo.build("lenet"), Network.build((20, 2), Sequential(Conv(4, 5), Flatten(), Dense(1))), deep("layer1"),
    deep("a.very.deeply.nested.and.carefully.named.stage_of_the_network"),
])
def test_it_fits_the_page(net):
    lines = net.summary().splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split("  ")[0] == "layer"
    # Every row still ends with its whole memory, whatever was shortened.
    body = lines[3 : 3 + len(net.nodes)]
    assert [line.split()[-1] for line in body] == [f"{net.activation_bytes[n.name]:,}" for n in net.nodes]


def test_a_long_name_keeps_its_end():
    name = ".".join(f"part{i}" for i in range(30))
    row = Network.build((9, 9, 1), Sequential(**{name: ReLU()})).summary().splitlines()[3]
    shown = row.split()[0]
    assert shown.startswith("...") and len(shown) > 30 and name.endswith(shown[3:])
