"""Any number of a model opened: it adds up, leads down to pixels, sees what it says, and stays readable."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from three_ways import nodes, parameters

import pellucid
from pellucid import layers as L
from pellucid import zoo
from pellucid.exchange import onnx as onnx_files
from pellucid.explain import trace as tracing
from pellucid.explain.listing import MOST
from pellucid.network import INPUT, Network, Sequential


def branching():
    """Everything that plans fuse, two readers of a value, a sum, a concatenation, and a flattened end."""
    return nodes(
        (12, 11, 3), ("c1", L.Conv(6, 3, padding=1), "input"), ("n1", L.BatchNorm(), "c1"), ("r1", L.ReLU(), "n1"),
        ("p1", L.MaxPool(3, 2, 1), "r1"), ("c2", L.Conv(6, 3, padding="same", dilation=2, groups=2), "p1"),
        ("n2", L.BatchNorm(), "c2"), ("sum", L.Add(), "n2", "p1"), ("r2", L.ReLU(), "sum"),
        ("cat", L.Concat(), "r2", "p1"), ("d", L.Dropout(0.5), "cat"), ("a", L.AvgPool(2), "d"),
        ("flat", L.Flatten(), "a"), ("fc", L.Dense(9), "flat"), ("g", L.GELU(), "fc"), ("out", L.Dense(4), "g"))


def made(network, seed=0, **described):
    """A model with parameters from a normal distribution, the weights of a dot product so small that values stay so."""
    channels = network.input_shape[-1]
    model = pellucid.Model(network, None, preprocessing=pellucid.Preprocessing(
        network.input_shape, tuple(0.3 + 0.1 * i for i in range(channels)), (0.25,) * channels), **described)
    drawn = parameters(network, np.random.default_rng(seed))
    model.load_parameters({n: p / max(np.prod(p.shape[1:]), 1) ** 0.5 for n, p in drawn.items()})
    return model


def picture(model, seed=0):
    return np.random.default_rng(seed).integers(0, 256, model.network.input_shape, dtype=np.uint8)


def trained(tmp_path):
    """Some steps on noise."""
    network = Network.build((8, 8, 1), Sequential(
        L.Conv(8, 3, padding="same"), L.BatchNorm(), L.ReLU(), L.MaxPool(2), L.Flatten(), L.Dense(10)))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, 64)
    model = pellucid.Model(network, preprocessing=pellucid.Preprocessing.from_images(images))
    step = pellucid.TrainStep(model, batch_size=64, optimizer=pellucid.optim.SGD(lr=0.05, momentum=0.9))
    for _ in range(5):
        step(images, labels)
    return model


def from_the_zoo(tmp_path):
    return made(zoo.build("resnet20", input_shape=(32, 32, 3), classes=5))


def imported(tmp_path):
    """From an ONNX file as another program would have written it: without what Pellucid says of its own."""
    onnx = pytest.importorskip("onnx")
    model = made(branching())
    model.preprocessing = None
    onnx_files.export(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "other.onnx")
    return onnx_files.load(tmp_path / "other.onnx", mean=(0.4, 0.4, 0.5), std=(0.2, 0.3, 0.2))


def somewhere(rng, shape):
    return tuple(int(rng.integers(n)) for n in shape)


def largest(terms):
    """The term that does most for a number, padding left out."""
    known = [i for i in terms.largest() if terms[i].name != "padding"]
    return terms[terms.winner] if terms.winner is not None else max((terms[i] for i in known),
                                                                    key=lambda term: abs(term.product))


@pytest.mark.parametrize("model", [trained, from_the_zoo, imported])
def test_every_number_adds_up_and_leads_to_a_pixel(model, tmp_path):
    model, rng = model(tmp_path), np.random.default_rng(0)
    image = picture(model)
    trace = model.trace(image)
    np.testing.assert_allclose(trace[model.network.output].value,
                               model.logits(model.preprocessing.apply(image[None]))[0], rtol=1e-4, atol=1e-4)
    for name in trace:
        terms = trace[name][somewhere(rng, trace[name].shape)]
        assert abs(terms.total - terms.value) <= terms.bound < 1e-3 * max(1, np.abs(trace[name].value).max())
        assert terms.summed is (terms.winner is None)
        seen = []
        for i in rng.choice(len(terms), min(len(terms), 5), replace=False):
            term = terms[i]
            if term.factor is not None:
                assert term.product == term.value * term.factor
            if term.weight:
                name, index = term.weight
                assert term.factor == model.parameters[name][index]
            if term.source is not None:
                assert term.source.value == term.value
                seen.append(term.source.address)
        assert len(set(seen)) == len(seen)

    answer = int(trace[model.network.output].value.argmax())
    terms = trace[model.network.output][answer]
    while terms.name != INPUT:
        terms = largest(terms).source
    (pixel,) = terms
    assert pixel.name == "pixel" and pixel.value == image[pixel.index] and pixel.source is None
    assert pixel.factor == model.preprocessing.scale[pixel.index[-1]]
    assert terms.steps[1].value == model.preprocessing.shift[pixel.index[-1]]
    assert abs(terms.total - terms.value) <= terms.bound


@pytest.mark.parametrize("name", ["c1", "r1", "p1", "c2", "sum", "cat", "a", "flat", "fc"])
def test_a_number_sees_its_field_and_no_more(name):
    """Noise outside of it changes nothing, to the bit; each of its sides is needed by some number."""
    model, rng = made(branching()), np.random.default_rng(1)
    image = picture(model)
    trace = model.trace(image)
    for _ in range(6):
        index = somewhere(rng, trace[name].shape)
        terms = trace[name][index]
        inside = np.zeros(image.shape, bool)
        if terms.field is None:
            assert name == "fc"
            continue
        rows, columns = (span.clipped for span in terms.field)
        inside[rows.start:rows.stop, columns.start:columns.stop] = True
        other = np.where(inside, image, picture(model, 2))
        assert model.trace(other)[name][index].value == terms.value
        if name == "c1":
            assert inside.sum() == len([t for t in terms if t.name != "padding"])
        if inside.size > inside.sum():
            changed = np.where(inside, picture(model, 3), image)
            assert model.trace(changed)[name][index].value != terms.value or terms.value == 0


def test_windows_say_padding_and_steps():
    trace = made(branching()).trace(picture(made(branching())))
    terms = trace["c2"][0, 5, 4]
    (y, x) = terms.windows["p1"]
    assert (y.first, y.last, y.step, y.before, y.after, list(y.clipped)) == (-2, 2, 2, 1, 0, [0, 2])
    assert (x.first, x.last, x.before, x.after, list(x.clipped)) == (3, 7, 0, 1, [3, 5])
    assert "looks at p1: y 0 to 2 in steps of 2 of 6 and padding 1 before, x 3 to 5 in steps of 2 of 6" in str(terms)
    assert {t.index[-1] for t in terms} == {3, 4, 5}  # its group's channels
    assert [t.name for t in terms].count("padding") == 3 * 5
    assert set(trace["sum"][1, 2, 3].windows) == {"n2", "p1"}
    (feature,) = trace["fc"][2].windows["flat"]
    assert (feature.first, feature.last, feature.size) == (0, 3 * 3 * 12 - 1, 108)
    y, x = trace["flat"][107].windows["a"]
    assert y.first == y.last == x.first == x.last == 2
    assert trace["flat"][107].field == trace["a"][2, 2, 11].field != trace["flat"][0].field


def test_what_goes_on_with_a_number():
    trace = made(branching()).trace(picture(made(branching())))
    assert [t.address for t in trace["c1"][1, 2, 3].then] == ["n1[1,2,3]", "r1[1,2,3]"]
    assert [t.address for t in trace["fc"][1].then] == ["g[1]"]
    assert trace["p1"][1, 2, 3].then == trace["out"][1].then == []
    assert f"then r1 (ReLU): max(x, 0) = {trace['r1'][1, 2, 3].value:.6g}" in str(trace["c1"][1, 2, 3])


# The lecture.


def test_the_lectures_signal():
    model = pellucid.Model(Network.build((5, 1), L.Conv(1, 2, bias=False)), None)
    model.load_parameters({"conv1.weight": np.array([-1, 1], np.float32).reshape(1, 1, 2)})
    trace = model.trace(np.array([0, 1, 0, 1, 1], np.float32)[:, None])
    assert trace["conv1"].value.ravel().tolist() == [1, -1, 1, 0]
    terms = trace.at("conv1[1,0]")
    assert [(t.name, t.index, t.value, t.factor, t.product) for t in terms] == [
        ("input", (1, 0), 1, -1, -1), ("input", (2, 0), 0, 1, 0)]
    assert [t.weight for t in terms] == [("conv1.weight", (0, 0, 0)), ("conv1.weight", (0, 0, 1))]
    assert terms.total == terms.value == -1 and terms[0].source.steps == (("given as float32", 1.0, "", ()),)
    assert len(terms[0].source) == 0 and "given as float32" in str(terms[0].source)


def test_the_lectures_pooling():
    model = pellucid.Model(Network.build((5, 5, 1), L.MaxPool(3, 1)), None)
    x = np.array([[1, 0, 2, 1, 0], [0, 1, 3, 0, 1], [2, 0, 3, 1, 2], [1, 2, 0, 1, 0], [0, 1, 1, 2, 3]], np.float32)
    terms = model.trace(x[..., None])["pool1"][0, 1, 0]
    assert terms.value == 3 and terms[terms.winner].index == (1, 2, 0)  # the first of two
    assert "input[1,2,0] wins" in str(terms) and terms.to_json()["winner"] == terms.winner


# Addresses.


def test_addresses():
    model = from_the_zoo(None)
    trace = model.trace(picture(model))
    assert trace.at("layer1.0.conv1").name == "layer1.0.conv1"
    assert trace.at(" layer1.0.conv1 [ 3, 4,0 ] ").value == trace["layer1.0.conv1"].value[3, 4, 0]
    assert trace[trace.at("fc[2]").name][np.int64(2)].address == "fc[2]"
    assert trace.names[0] == INPUT and len(trace) == len(model.network.nodes) + 1 and "fc" in trace
    for terms in (trace.at("fc[2]"), trace.at("input[1,2,0]")):
        assert trace.at(terms.address).value == terms.value
    assert np.asarray(trace["fc"]).tolist() == trace["fc"].value.tolist()
    with pytest.raises(ValueError, match="read-only"):
        trace["fc"].value[0] = 1


@pytest.mark.parametrize(("text", "message"), [
    ("nothing[1]", "no layer is called 'nothing'; there are c1"), ("c1[1,2]", r"c1 has shape \(12, 11, 6\), so that"),
    ("c1[12,0,0]", "0 to 11, 0 to 10, 0 to 5; got 12, 0, 0"), ("c1[-1,0,0]", "an address is a name and an index"),
    ("c1[", "as in conv1"), ("c1[1.5,0,0]", "as in conv1"), ("c1[]", "as in conv1"), ("", "as in conv1"),
    ("c1[" + "1," * 400 + "1]", "so that an index is"), ("x" * 5000, "as in conv1"), ("c1[٣,0,0]", "as in conv1"),
    ("c1[99999999999,0,0]", "as in conv1"), ("c1[0,0,0]\n", None),
])
def test_addresses_that_are_not(text, message):
    trace = made(branching()).trace(picture(made(branching())))
    if message is None:
        assert trace.at(text).address == "c1[0,0,0]"
        return
    with pytest.raises(ValueError, match=message) as refused:
        trace.at(text)
    assert len(str(refused.value)) < 300 or text.count(",") > 100
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("index", [True, 1.0, None, (0, 0, True), "0", slice(2), (0, 0, -1)])
def test_an_index_is_of_integers(index):
    trace = made(branching()).trace(picture(made(branching())))
    with pytest.raises(ValueError, match="c1 has shape"):
        trace["c1"][index]


@pytest.mark.parametrize(("image", "message"), [
    (np.zeros((12, 11), np.uint8), r"expected one image of shape \(12, 11, 3\)"),
    (np.zeros((1, 12, 11, 3), np.uint8), "expected one image"), (np.zeros((12, 11, 3)), "float64"),
    (np.full((12, 11, 3), np.nan, np.float32), "not finite"),
])
def test_images_that_do_not_fit(image, message):
    with pytest.raises(ValueError, match=message):
        made(branching()).trace(image)


def test_an_image_may_be_grey_or_as_the_network_reads_it():
    model = made(Network.build((6, 5, 1), Sequential(L.Conv(2, 3), L.GlobalAvgPool())))
    grey = picture(model)
    by_bytes, by_floats = model.trace(grey[..., 0]), model.trace(model.preprocessing.apply(grey[None])[0])
    np.testing.assert_allclose(by_bytes["conv1"].value, by_floats["conv1"].value, atol=1e-5)
    assert len(by_bytes["input"][0, 0, 0]) == 1 and len(by_floats["input"][0, 0, 0]) == 0
    grey[:] = 0  # the trace has its own
    assert by_bytes["input"][0, 0, 0].value == pytest.approx(by_floats["input"][0, 0, 0].value, abs=1e-6)


# Numbers that are not finite, which a trace is to find.


@pytest.mark.parametrize("of", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38, -1.0])
def test_numbers_that_are_not_finite_are_shown_as_they_are(number, of):
    """Without warnings, which are errors here."""
    model = made(Network.build((6, 6, 2), Sequential(
        L.Conv(4, 3, padding=1), L.BatchNorm(), L.ReLU(), L.MaxPool(2), L.LRN(), L.SiLU(), L.AvgPool(2, 1), L.Flatten(),
        L.Dense(3), L.Softmax())))
    model.load_parameters({n: np.full_like(p, number) if n.endswith(of) else p for n, p in model.parameters.items()})
    trace = model.trace(picture(model))
    for name in trace:
        for index in (somewhere(np.random.default_rng(i), trace[name].shape) for i in range(3)):
            terms = trace[name][index]
            json.dumps(terms.to_json(), allow_nan=False)
            assert repr(terms)[1:-1].startswith(str(terms).splitlines()[0]) and "<td" in terms._repr_html_()
    if np.isfinite(trace["dense1"].value).all():
        received = trace.backward(label=1)["conv1"][0, 0, 0]
        json.dumps(received.to_json(), allow_nan=False)
        assert np.isnan(received.value) or abs(received.total - received.value) < 1e-4
    else:
        with pytest.raises(ValueError, match=r"not all scores for this image \(dense1\) are finite numbers"):
            trace.backward(label=1)


def test_a_negative_variance_has_no_root():
    model = made(Network.build((4, 4, 1), Sequential(L.BatchNorm(), L.GlobalAvgPool())))
    model.load_parameters({**model.parameters, "bn1.running_var": np.array([-1], np.float32)})
    terms = model.trace(picture(model))["bn1"][0, 0, 0]
    assert np.isnan(terms.value) and np.isnan(terms.total)
    assert "The engine's float32 value is the same" in str(terms)


# Memory, and a model that changes.


def test_large_networks_are_computed_in_parts(monkeypatch):
    model = made(branching())
    whole = model.trace(picture(model))
    assert len(whole.parts) == 1
    monkeypatch.setattr(tracing, "PART", 8_000)
    trace, rng = model.trace(picture(model)), np.random.default_rng(0)
    assert len(trace.parts) > tracing.PARTS + 1 and sum(map(len, trace.parts)) == len(model.network.nodes)
    for name in trace:
        np.testing.assert_allclose(trace[name].value, whole[name].value, rtol=1e-4, atol=1e-4)
        terms = trace[name][somewhere(rng, trace[name].shape)]
        assert abs(terms.total - terms.value) <= terms.bound
        assert len(trace._parts) <= tracing.PARTS
    for name in trace:
        np.testing.assert_allclose(trace.backward(1)[name].value, whole.backward(1)[name].value, rtol=1e-3, atol=1e-4)


def test_a_model_must_not_change_under_its_trace():
    model = made(branching())
    trace = model.trace(picture(model))
    fresh = model.trace(picture(model))  # has computed nothing yet
    assert trace["c1"][0, 0, 0].value == trace["c1"].value[0, 0, 0]
    model.load_parameters(made(branching(), seed=1).parameters)
    for ask in (lambda: trace["c1"][0, 0, 0], lambda: trace.backward(0), lambda: fresh["c1"].value):
        with pytest.raises(ValueError, match="have changed since this image was traced; trace it again"):
            ask()


# Shown.


def test_a_table_is_of_bounded_length_and_says_what_it_leaves_out():
    trace = made(branching(), classes=["a", "b", "<i>c</i>", "d"]).trace(picture(made(branching())))
    terms = trace["fc"][3]
    text = str(terms)
    assert len(text.splitlines()) < MOST + 12 and max(map(len, text.splitlines())) < 120
    assert f"{108 - MOST} more, together" in text and f"Shown are the {MOST} largest of 108 terms." in text
    shown = terms.largest(MOST)
    assert np.abs(terms.numbers[shown]).min() >= np.abs(terms.left_out(shown)).max()
    short = terms.to_json(MOST)
    assert sum(t["product"] for t in short["terms"]) + short["left_out"]["sum"] == pytest.approx(terms.steps[0].value)
    assert short["left_out"]["count"] == 108 - MOST and len(terms.to_json()["terms"]) == 108
    assert terms.text(most=None).count("fc.weight[3,") == 108
    few = str(trace["p1"][1, 1, 1])
    assert "more" not in few and few.index("r1[1,1,1]") < few.index("r1[2,2,1]") < few.index("r1[3,3,1]")
    assert "Dense, the score of '<i>c</i>'" in str(trace["out"][2]) and "score" not in str(trace["fc"][2])
    for name in trace:
        index = somewhere(np.random.default_rng(0), trace[name].shape)
        assert json.loads(json.dumps(trace[name][index].to_json()))["address"] == trace[name][index].address


class Text(HTMLParser):
    """The cells of a table, and which elements there are."""

    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.found.append(data)


def test_html_holds_the_same_and_escapes_names():
    model = made(branching(), classes=["a", "b", "<i>c</i>", "d"])
    trace = model.trace(picture(model))
    for terms in (trace["out"][2], trace["c1"][0, 0, 0], trace["input"][0, 0, 0], trace.backward(2)["fc"][3]):
        html = terms._repr_html_()
        assert "<i>" not in html
        text = "".join(Text(html).found)
        assert all(word in text for word in str(terms).split()), "as the table in text"


def test_layers_are_drawn_in_notebooks():
    classes = ["a", "b", "<i>c</i>", "d"]
    trace = made(branching(), classes=classes).trace(picture(made(branching())))
    for name, shown in (("c1", "<image"), ("out", "&lt;i&gt;c&lt;/i&gt;"), ("fc", "<rect"), ("input", "<image")):
        html = trace[name]._repr_html_()
        assert "<svg" in html and shown in html and "<i>" not in html and repr(trace[name])[1:-1] in html
    assert "<svg" not in trace["flat"]._repr_html_()  # 108 numbers
    signal = made(Network.build((9, 2), L.Conv(3, 3)))
    assert "<svg" in signal.trace(np.zeros((9, 2), np.float32))["conv1"]._repr_html_()
    high = made(Network.build((2,), L.Dense(2))).trace(np.full(2, 3e38, np.float32))["dense1"]
    assert "<svg" in high._repr_html_() or "finite" in high._repr_html_()


def test_layers_say_what_they_are():
    trace = made(branching()).trace(picture(made(branching())))
    assert repr(trace["p1"]) == "<p1 (MaxPool), (6, 6, 6), each seeing 5x5 of the image>"
    assert repr(trace["fc"]) == "<fc (Dense), (9,), each seeing all of the image>"
    assert repr(trace) == "<Trace of 16 values, from uint8 (12, 11, 3) to out (4,)>"
    assert repr(trace["c1"][0, 0, 0][0]) == f"<padding 0 x {trace['c1'][0, 0, 0][0].factor:.6g}: 0>"
    vectors = made(Network.build((7,), L.Dense(2))).trace(np.ones(7, np.float32))
    assert repr(vectors["dense1"]) == "<dense1 (Dense), (2,)>" and "image" not in str(vectors["dense1"][1])
