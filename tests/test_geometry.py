"""Windows, sizes and receptive fields against counting by hand; no array library needed but to compare."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.geometry import ReceptiveField, Window, conv_macs, covering, output_size, parts, per_axis, windows

windows_drawn = st.builds(
    Window, size=st.integers(1, 6), stride=st.integers(1, 6), before=st.integers(0, 8), after=st.integers(0, 8),
    dilation=st.integers(1, 4),
)
lengths = st.integers(1, 14)


def positions(w, n):
    """Where the window fits on the padded axis, found by trying every place: input indices under its taps."""
    axis = range(-w.before, n + w.after)
    placed = []
    for first in axis[:: w.stride]:
        taps = [first + i * w.dilation for i in range(w.size)]
        if taps[-1] in axis:
            placed.append(taps)
    return placed


@settings(max_examples=300, deadline=None)
@given(windows_drawn, lengths)
def test_a_window_takes_the_positions_found_by_trying_all(w, n):
    expected = positions(w, n)
    assert w.output_size(n) == len(expected)
    assert [list(w.inputs(o)) for o in range(w.output_size(n))] == expected
    assert [w.start(o) for o in range(w.output_size(n))] == [taps[0] for taps in expected]
    assert all(taps[-1] - taps[0] + 1 == w.reach for taps in expected)


@settings(max_examples=300, deadline=None)
@given(windows_drawn, lengths)
def test_a_window_always_sees_the_axis_where_every_position_has_a_tap_on_it(w, n):
    blind = [taps for taps in positions(w, n) if not any(0 <= i < n for i in taps)]
    if w.always_sees(n):
        assert not blind
    elif not blind and positions(w, n):  # it may also say no where padding is merely wider than a window should have
        assert max(w.before, w.after) >= w.reach or w.dilation > n


@settings(max_examples=300, deadline=None)
@given(windows_drawn, lengths, st.data())
def test_rounding_up_is_pytorchs_ceil_mode(w, n, data):
    padding = data.draw(st.integers(0, w.size // 2))
    w = Window(w.size, w.stride, padding, padding, w.dilation)
    if w.output_size(n) < 1:
        return
    x = torch.arange(float(n)).reshape(1, 1, n)
    expected = F.max_pool1d(x, w.size, w.stride, padding, w.dilation, ceil_mode=True)
    longer = w.rounded_up(n)
    assert longer.output_size(n) == expected.shape[2]
    assert (longer.before, longer.after >= w.after) == (w.before, True)


@settings(max_examples=300, deadline=None)
@given(windows_drawn, lengths)
def test_overhang_is_the_padding_that_is_really_read(w, n):
    read = [p for taps in positions(w, n) for p in taps]
    before = max((-p for p in read if p < 0), default=0)
    after = max((p - (n - 1) for p in read if p >= n), default=0)
    assert w.overhang(n) == (before, after)


@pytest.mark.parametrize(("n", "size", "stride", "padding", "dilation", "expected"), [
    (5, 3, 1, 0, 1, 3),  # the lecture's three
    (5, 3, 2, 0, 1, 2),
    (5, 3, 2, 1, 1, 3),
    (227, 11, 4, 0, 1, 55),  # AlexNet's first convolution
    (224, 7, 2, 3, 1, 112),  # ResNet's
    (7, 3, 1, 0, 3, 1),  # dilation 3: taps 0, 3, 6
    (6, 3, 1, 0, 3, 0),  # one too short
    (1, 1, 5, 0, 1, 1),
    (1, 3, 7, 9, 1, 3),  # padding and stride larger than the axis
])
def test_output_sizes_known(n, size, stride, padding, dilation, expected):
    axes = windows((n, n), size, stride, padding, dilation)
    assert output_size((n, n), axes) == (expected, expected)


@settings(max_examples=300, deadline=None)
@given(lengths, st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_same_padding_is_the_least_that_gives_ceil_n_over_s(n, size, stride, dilation):
    (w,) = windows((n,), size, stride, "same", dilation)
    wanted = -(-n // stride)
    assert w.output_size(n) == wanted
    assert 0 <= w.after - w.before <= 1
    if w.after:
        assert Window(size, stride, w.before, w.after - 1, dilation).output_size(n) < wanted


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # PyTorch's, about its speed
@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_same_padding_is_pytorchs(n, size, dilation, seed):
    rng = np.random.default_rng(seed)
    x, f = (torch.from_numpy(rng.integers(-4, 5, (1, 1, k)).astype(float)) for k in (n, size))
    (w,) = windows((n,), size, 1, "same", dilation)
    padded = torch.nn.functional.pad(x, (w.before, w.after))
    ours = torch.nn.functional.conv1d(padded, f, dilation=dilation)
    assert torch.equal(ours, torch.nn.functional.conv1d(x, f, padding="same", dilation=dilation))


@pytest.mark.parametrize(("padding", "sides"), [
    (0, [(0, 0), (0, 0)]),
    (2, [(2, 2), (2, 2)]),
    ((1, 2), [(1, 1), (2, 2)]),
    ([1, 2], [(1, 1), (2, 2)]),
    (((1, 0), (2, 3)), [(1, 0), (2, 3)]),
    ((4, (2, 3)), [(4, 4), (2, 3)]),
    ("same", [(1, 1), (0, 1)]),
])
def test_forms_of_padding(padding, sides):
    assert [(w.before, w.after) for w in windows((5, 5), (3, 2), 1, padding)] == sides


def test_an_integer_counts_for_every_axis_and_a_sequence_for_each():
    assert windows((9, 9), 3, 2, 1, 2) == (Window(3, 2, 1, 1, 2),) * 2
    assert windows((9, 8), (3, 1), (2, 4), (1, 0), (1, 2)) == (Window(3, 2, 1, 1, 1), Window(1, 4, 0, 0, 2))
    assert per_axis(3, 2) == (3, 3) and per_axis([3, 4], 2) == (3, 4)


@pytest.mark.parametrize(("arguments", "named"), [
    ({"size": 0}, "size"),
    ({"size": (3, 0)}, "size"),
    ({"size": (3, 3, 3)}, "size"),
    ({"size": 3, "stride": 0}, "stride"),
    ({"size": 3, "stride": 1.5}, "stride"),
    ({"size": 3, "stride": True}, "stride"),
    ({"size": 3, "dilation": 0}, "dilation"),
    ({"size": 3, "padding": -1}, "padding"),
    ({"size": 3, "padding": (1, -1)}, "padding"),
    ({"size": 3, "padding": (1, 2, 3)}, "padding"),
    ({"size": 3, "padding": ((1, 2, 3), (1, 2))}, "padding"),
    ({"size": 3, "padding": "valid"}, "padding"),
    ({"size": 3, "padding": 0.5}, "padding"),
    ({"size": 3, "padding": None}, "padding"),
    ({"size": 3, "padding": True}, "padding"),
])
def test_a_wrong_hyperparameter_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        windows((5, 5), **arguments)


@settings(max_examples=300, deadline=None)
@given(windows_drawn, lengths, st.integers(0, 2**32 - 1))
def test_transposed_phases_are_the_gradient_to_the_input(w, n, seed):
    rng = np.random.default_rng(seed)
    outputs = w.output_size(n)
    taps, dy = rng.integers(-9, 10, w.size), rng.integers(-9, 10, outputs)

    expected = np.zeros(n, int)  # every output scatters its gradient over the inputs it saw
    for o, i in product(range(outputs), range(w.size)):
        p = o * w.stride - w.before + i * w.dilation
        if 0 <= p < n:
            expected[p] += taps[i] * dy[o]

    computed, written = np.zeros(n, int), np.zeros(n, int)
    for phase in w.transposed(n):
        for q in range(phase.count):
            p = phase.first + q * w.stride
            written[p] += 1
            for m, tap in enumerate(phase.taps):
                o = phase.start + q + m * phase.dilation
                if 0 <= o < outputs:
                    computed[p] += taps[tap] * dy[o]
    assert (written == 1).all()
    assert (computed == expected).all()


@settings(max_examples=200, deadline=None)
@given(windows_drawn, lengths)
def test_a_transposed_phase_holds_only_taps_that_can_meet(w, n):
    """No tap is spent on a position between two gradients, and all of a window's taps are used once a stride."""
    phases = w.transposed(n)
    assert all(phase.dilation >= 1 for phase in phases)
    if n >= w.stride:
        assert sorted(tap for phase in phases for tap in phase.taps) == list(range(w.size))


@settings(max_examples=200, deadline=None)
@given(st.lists(windows_drawn, max_size=4), st.integers(0, 3))
def test_receptive_field_is_what_is_seen_when_followed_back(stack, position):
    field = ReceptiveField()
    for w in stack:
        field = field.through(w)
    seen = {position}
    for w in reversed(stack):
        seen = {p * w.stride - w.before + i * w.dilation for p in seen for i in range(w.size)}
    assert field.covers(position) == range(min(seen), max(seen) + 1)


def test_receptive_fields_known():
    field = ReceptiveField()
    for _ in range(3):  # VGG: three 3x3 filters see what one 7x7 filter sees
        field = field.through(Window(3, 1, 1, 1))
    assert field == ReceptiveField(7, 1, -3)
    field = ReceptiveField()
    for w in (Window(11, 4), Window(3, 2), Window(5, 1, 2, 2), Window(3, 2), *[Window(3, 1, 1, 1)] * 3, Window(3, 2)):
        field = field.through(w)
    assert (field.size, field.stride) == (195, 32)  # AlexNet up to its last pooling


@settings(max_examples=100, deadline=None)
@given(windows_drawn, windows_drawn, st.integers(0, 5))
def test_union_of_branches_is_the_smallest_field_that_holds_both(a, b, position):
    a, b = ReceptiveField().through(a), ReceptiveField().through(b)
    if a.stride != b.stride:
        with pytest.raises(ValueError, match="stride"):
            a.union(b)
        return
    both = [*a.covers(position), *b.covers(position)]
    assert a.union(b).covers(position) == range(min(both), max(both) + 1)


def test_multiply_adds():
    assert conv_macs((55, 55), 96, (11, 11), 3, 1) == 105_415_200  # AlexNet's first convolution
    assert conv_macs((5, 4), 6, (3, 2), 6, 6) == 5 * 4 * 6 * 3 * 2  # depthwise: each filter reads one channel
    assert conv_macs((7,), 4, (3,), 6, 2) == 7 * 4 * 3 * 3


# Parts.


@settings(max_examples=200, deadline=None)
@given(lengths, lengths)
def test_parts_cover_an_axis_evenly(n, count):
    spans = parts(n, count)
    assert len(spans) == count and all(spans) and set().union(*spans) == set(range(n))
    # Centres stand at equal distances, within the rounding of both ends.
    for i, span in enumerate(spans):
        assert abs((span.start + span.stop) - (2 * i + 1) * n / count) < 1


@settings(max_examples=200, deadline=None)
@given(lengths, lengths)
def test_one_window_covers_every_part_and_no_smaller_one_does(n, count):
    spans = parts(n, count)
    window = covering(spans)

    def covers(first, size, stride):
        return all(first + i * stride <= s.start and s.stop <= first + i * stride + size for i, s in enumerate(spans))

    assert covers(-window.before, window.size, window.stride)
    smaller = window.size - 1
    assert not any(covers(-before, smaller, stride) for before in range(n + count) for stride in range(1, n + 1))
    assert n % count or (window.size, window.before) == (n // count, 0)
