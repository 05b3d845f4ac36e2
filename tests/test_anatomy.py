"""Where costs are and what stacks save: by hand, by the lecture, and by building what is compared with."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import anatomy, zoo
from pellucid.layers import BatchNorm, Conv, Dense, Flatten, MaxPool, ReLU
from pellucid.network import Network, Residual, Sequential


def test_two_small_filters_against_a_large_one():
    """The lecture's comparison: 2 * 9 C^2 against 25 C^2, with the same 5x5 field."""
    net = Network.build((20, 20, 8), Sequential(Conv(8, 3, padding=1, bias=False), ReLU(),
                                                Conv(8, 3, padding=1, bias=False)))
    (row,) = anatomy.describe(net)["stacks"]
    assert (row["field"], row["times"], row["channels"]) == ([5, 5], 1, [8, 8, 8])
    assert (row["parameters"], row["single_parameters"]) == (2 * 9 * 64, 25 * 64)
    assert (row["macs"], row["single_macs"]) == (400 * 2 * 9 * 64, 400 * 25 * 64)


sizes = st.sampled_from([1, 2, 3, 5, (3, 1)])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), sizes, st.integers(1, 2), st.booleans()), min_size=2, max_size=4),
       st.integers(1, 3), st.booleans())
def test_the_one_filter_sees_as_much_and_costs_what_it_would(layers, stride, bias):
    parts = []
    for number, (filters, size, dilation, norm) in enumerate(layers):
        parts.append(Conv(filters, size, 1 if number else stride, 0, dilation, bias=bias))
        parts += [BatchNorm()] if norm else []
    net = Network.build((90, 90, 3), Sequential(*parts))
    stacks = anatomy.describe(net)["stacks"]
    convolutions = [n for n in net.nodes if isinstance(n.layer, Conv)]
    reaches = [max(w.reach for w in n.layer.windows(net.shapes[n.inputs[0]])) for n in convolutions]
    if sum(reach > 1 for reach in reaches) < 2:
        assert stacks == []
        return
    row = stacks[0]
    single = Network.build((90, 90, 3), Conv(layers[-1][0], tuple(row["field"]), stride, bias=bias))
    assert single.output_shape == tuple(row["map"]) == net.shapes[convolutions[-1].name]
    assert [f.size for f in net.receptive_fields[convolutions[-1].name]] == row["field"]
    assert (single.parameter_count, single.macs["conv1"]) == (row["single_parameters"], row["single_macs"])
    assert row["parameters"] == sum(net.parameter_counts[n.name] for n in convolutions)
    assert row["macs"] == sum(net.macs[n.name] for n in convolutions)


def test_pooling_branches_strides_and_groups_end_a_stack():
    def stacks(*parts):
        return anatomy.describe(Network.build((30, 30, 4), Sequential(*parts)))["stacks"]

    pair = [Conv(4, 3), Conv(4, 3)]
    assert len(stacks(*pair)) == 1
    assert stacks(Conv(4, 3), MaxPool(2), Conv(4, 3)) == stacks(Conv(4, 3), Conv(4, 3, 2)) == []
    assert stacks(Conv(4, 3), Conv(4, 3, groups=2)) == []
    assert stacks(Conv(4, 3, padding=1), Residual(Conv(4, 3, padding=1))) == []
    assert [r["map"] for r in stacks(*pair, MaxPool(2), *pair)] == [[26, 26, 4], [9, 9, 4]]
    assert [r["times"] for r in anatomy.describe(zoo.build("resnet20"))["stacks"]] == [3, 1, 2, 1, 2]


def test_a_stack_and_its_end_of_equal_channels():
    rows = anatomy.describe(Network.build((9, 9, 2), Sequential(Conv(4, 3), Conv(4, 3), Conv(4, 3))))["stacks"]
    assert [(r["channels"], r["field"]) for r in rows] == [([2, 4, 4, 4], [7, 7]), ([4, 4, 4], [5, 5])]


@pytest.mark.parametrize("name", zoo.names())
def test_shares_add_up_and_tables_fit(name):
    net = zoo.build(name)
    found = anatomy.describe(net)
    for part in ("parts", "kinds"):
        assert sum(r["parameters"] for r in found[part]) == net.parameter_count
        assert sum(r["macs"] for r in found[part]) == sum(net.macs.values())
        for share in ("parameters_share", "macs_share"):
            assert sum(r[share] for r in found[part]) == pytest.approx(1)
    lines = anatomy.text(net).splitlines()
    assert max(map(len, lines)) <= 80 and all(line == line.rstrip() for line in lines)
    fields = [f for r in found["fields"] for f in (r["field_before"], r["field"])]
    assert fields == sorted(fields) and [r["stride"] for r in found["fields"]] == sorted(
        {r["stride"] for r in found["fields"]})
    if fields:
        assert fields[-1] == max(f[0].size for f in net.receptive_fields.values() if f)


def test_vgg16_by_hand():
    found = anatomy.describe(zoo.build("vgg16"))
    assert {r["name"]: r["parameters"] for r in found["parts"]} == {"features": 14_714_688, "classifier": 123_642_856}
    assert [r["field"] for r in found["fields"]] == [5, 14, 40, 92, 196, 212]  # 5, 14, 40, 92, 196 before each maximum
    assert [r["stride"] for r in found["fields"]] == [1, 2, 4, 8, 16, 32]
    text = anatomy.text(zoo.build("vgg16"))
    assert "classifier  123,642,856  89.4%     123,633,664   0.8%" in text
    assert "2 of 3x3      512 throughout          4,719,616          3.7 G\n" in text
    assert "  or one 5x5                          6,554,112         5.14 G\n" in text


def test_long_names_and_many_rows_are_cut():
    parts = {f"a_part_with_a_long_name_that_goes_on_and_on_{i}_and_on": Conv(10**4, 1) for i in range(30)}
    text = anatomy.text(Network.build((9, 9, 10**4), Sequential(**parts)))
    assert max(map(len, text.splitlines())) <= 80 and "..." in text and len(text.splitlines()) < 30


def test_a_network_without_maps_has_shares_only():
    net = Network.build((2, 2, 1), Sequential(Flatten(), Dense(2)))
    assert anatomy.text(net) == "" and anatomy.describe(net)["fields"] == anatomy.describe(net)["stacks"] == []


def test_the_command_shows_it():
    def summary(*arguments):
        done = subprocess.run([sys.executable, "-m", "pellucid", "summary", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    net = zoo.build("lenet5")
    assert summary("lenet5") == f"{net.summary()}\n\n{anatomy.text(net)}\n"
    assert anatomy.describe(net).items() <= json.loads(summary("lenet5", "--json")).items()
