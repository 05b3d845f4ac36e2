"""A model as PyTorch source: a Python file with one `nn.Module`, written out layer by layer, beside its weights.

What is written needs PyTorch and safetensors, and not Pellucid.
"""

from __future__ import annotations

import keyword
import os
import re
import tempfile
from importlib import import_module
from math import prod
from pathlib import Path

import numpy as np

from .. import __version__, modelfile, views
from ..files import replacing
from ..geometry import Window
from ..layers.activation import Softmax
from ..layers.base import Shape
from ..model import Model
from ..network import INPUT, Node
from . import agreement

WEIGHTS = ".safetensors"  # the ending of what holds the weights
# What a layer cannot be called: names that the text uses, and those that every nn.Module has, but for those that begin
# with an underscore, which no layer's does.
RESERVED = frozenset("""
    F T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
    extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules
    mtia named_buffers named_children named_modules named_parameters nn parameters prepare register_backward_hook
    register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ scores
    self set_extra_state set_submodule share_memory state_dict to to_empty torch train training type xpu zero_grad
""".split())

HEAD = '''\
"""A classifier of images, exported by Pellucid {version}.

    from {module} import CLASSES, load

    network = load()                    # weights: {weights}, beside this file
    probabilities = network(images)     # uint8 tensor (N, {size}) -> (N, {classes})
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

CLASSES = {names}
MEAN = {mean}  # of each channel, where white is 1
STD = {std}
TEMPERATURE = {temperature}  # that makes the probabilities mean what they say
{functions}

class Network(nn.Module):
    def __init__(self):
        super().__init__()
{modules}

    def prepare(self, images):
        """From uint8 pixels (N, H, W, C) to what the layers read: (N, C, H, W)."""
        mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
        return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    def scores(self, x):
        """What the network says of prepared images, before the probabilities."""
{lines}
        return {output}

    def forward(self, images):
        """Probabilities (N, classes) for uint8 images (N, H, W, C)."""
        x = self.prepare(images)
        scores = {scores}
        return {answer}


def load(weights=Path(__file__).with_suffix(".safetensors")):
    """The trained network, ready to be asked."""
    network = Network()
    network.load_state_dict(load_file(weights))
    return network.eval()
'''


VIEWS = '''

def views(x):
    """What the answer is the mean over: prepared images as they are and moved, each mirrored too; and weights."""
    height, width = x.shape[2:]
    x = F.pad(x, ({by}, {by}, {by}, {by}), "reflect")
    for top, left, weight in {crops}:
        view = x[:, :, top:top + height, left:left + width]
        yield view, weight / 2
        yield view.flip(3), weight / 2
'''


def export(model: Model, path: str | os.PathLike,
           check: tuple[str, np.ndarray] | None = None) -> agreement.Agreement | None:
    """Write a model as PyTorch source, `path` (.py), and its weights beside it (.safetensors, a state_dict).

    `check` (see `agreement.images_for`) are images that the written module is then asked about: only if its answers are
    the model's are the two files put there, and how well they agree is returned. Raises ValueError where they do not,
    for a model without preprocessing, and for a layer without a PyTorch form; OSError where a file cannot be written;
    and ImportError without PyTorch, to check.
    """
    path = Path(path)
    weights = path.with_suffix(WEIGHTS)
    text, names = source(model, path.stem)
    tensors = {names[name]: values for name, values in model.parameters.items()}
    for name in [n for n in tensors if n.endswith(".running_var")]:  # how many batches PyTorch's module has seen
        tensors[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    found = None
    if check is not None:
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / path.name
            trial.write_text(text)
            modelfile.write(trial.with_suffix(WEIGHTS), tensors, {"format": "pt"})
            found = agreement.compare(model, running(trial), *check)
        found.require("the PyTorch module")
    with replacing(path) as temporary:  # the text is written before the weights are in their place
        temporary.write_text(text, "utf-8")
        modelfile.write(weights, tensors, {"format": "pt"})
    return found


def running(path: Path):
    """What the module in a file that was just written answers to uint8 images."""
    try:
        torch = import_module("torch")
    except ImportError:
        raise ImportError("a PyTorch module is checked by running it: pip install torch") from None
    space = {"__file__": str(path), "__name__": "exported"}
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), space)  # our own text
    network = space["load"]()

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return answer


def source(model: Model, module: str) -> tuple[str, dict[str, str]]:
    """The text of the module, and under which name it has each of the model's parameters."""
    model.require_classes()
    model.require_preprocessing()
    network, p = model.network, model.preprocessing
    if len(network.input_shape) != 3:
        raise ValueError(f"the PyTorch module reads images, this network reads {network.input_shape}")
    w = Writer(model)
    for node in network.nodes:
        w.write(node)
    ends_in_softmax = isinstance(network.node(network.output).layer, Softmax)
    plain = ends_in_softmax and not model.calibration and model.tta == views.NONE  # probabilities already
    log = ".log()" * (ends_in_softmax and not plain)
    scores = f"self.scores(x){log}"
    height, width, channels = network.input_shape
    functions = ""
    if model.tta == views.MIRROR:
        scores = f"({scores} + self.scores(x.flip(3)){log}) / 2"
    elif model.tta == views.SHIFTS:
        scores = f"sum(weight * self.scores(view){log} for view, weight in views(x))"
        functions = VIEWS.format(by=views.step((height, width)), crops=views.crops(model.tta, (height, width)))
    text = HEAD.format(
        version=__version__, module=module, weights=f"{module}.safetensors", size=f"{height}, {width}, {channels}",
        classes=len(model.classes), names=ascii(model.classes), mean=list(p.mean), std=list(p.std),
        temperature=model.calibration.temperature if model.calibration else 1.0,
        modules="\n".join(f"        {line}" for line in w.modules) or "        pass",
        lines="\n".join(f"        {line}" for line in w.lines), output=w.values[network.output],
        functions=functions, scores=scores, answer="scores" if plain else "torch.softmax(scores / TEMPERATURE, 1)")
    return text, w.names


class Writer:
    """The lines of `__init__` and of the forward pass, as they are added."""

    def __init__(self, model: Model):
        self.network = model.network
        self.modules, self.lines = [], []
        self.values = {INPUT: "x"}  # the variable that holds each node's value
        self.names: dict[str, str] = {}
        self.taken = {*RESERVED, "x"}  # variables and attributes of the network

    def write(self, node: Node) -> None:
        form = FORMS.get(type(node.layer).__name__)
        shape = self.network.input_shapes(node)[0]
        variable = self._variable(node.name)
        inputs = [self.values[i] for i in node.inputs]
        if form is None:
            raise ValueError(f"layer {node.name!r} ({type(node.layer).__name__}) has no PyTorch form here")
        expression = form(self, node, shape, variable, *inputs)
        if expression in inputs:
            self.values[node.name] = expression
            return
        self.values[node.name] = variable
        self.lines.append(f"{variable} = {expression}")

    def _variable(self, name: str) -> str:
        text = re.sub(r"\W", "_", name)
        text = f"n{text}" if text[0].isdigit() or text[0] == "_" else text
        while keyword.iskeyword(text) or not self.taken.isdisjoint((text, f"{text}_weight", f"{text}_bias")):
            text += "_"
        self.taken |= {text, f"{text}_weight", f"{text}_bias"}  # an affine layer has two attributes
        return text

    def module(self, node: Node, attribute: str, text: str) -> None:
        """A module of the network, whose parameters are the node's."""
        self.modules.append(f"self.{attribute} = {text}")
        for name in node.layer.parameters(*self.network.input_shapes(node)):
            self.names[f"{node.name}.{name}"] = f"{attribute}.{name}"


# How each kind of layer is written: (writer, node, input's shape, attribute, names of its inputs) -> an expression.


def function(text: str):
    """A layer that is a function; `text` has {x} for its input and its settings by name."""
    return lambda w, node, shape, a, x: text.format(x=x, **_fields(node))


def _fields(node: Node) -> dict:
    return {name: getattr(node.layer, name) for name in node.layer.__dataclass_fields__}


def _axes(shape: Shape) -> int:
    return len(shape) - 1


def _padded(x: str, axes: tuple[Window, ...], value: str = "") -> str:
    sides = [side for w in reversed(axes) for side in (w.before, w.after)]
    return f"F.pad({x}, {tuple(sides)}{value})" if any(sides) else x


def _each(axes: tuple[Window, ...], field: str):
    values = tuple(getattr(w, field) for w in axes)
    return values[0] if len(set(values)) == 1 else values


def _conv(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    axes, layer = node.layer.windows(shape), node.layer
    even = all(v.before == v.after for v in axes)
    settings = {"stride": _each(axes, "stride"), "padding": _each(axes, "before") if even else 0,
                "dilation": _each(axes, "dilation"), "groups": layer.groups}
    default = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    more = "".join(f", {k}={v}" for k, v in settings.items() if v != default[k]) + (", bias=False" * (not layer.bias))
    w.module(node, a, f"nn.Conv{_axes(shape)}d({shape[-1]}, {layer.filters}, {_each(axes, 'size')}{more})")
    return f"self.{a}({x if even else _padded(x, axes)})"


def _dense(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    w.module(node, a, f"nn.Linear({shape[0]}, {node.layer.units}{', bias=False' * (not node.layer.bias)})")
    return f"self.{a}({x})"


def _batch_norm(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    settings = f"eps={node.layer.eps}, momentum={node.layer.momentum}"
    w.module(node, a, f"nn.BatchNorm{max(_axes(shape), 1)}d({shape[-1]}, {settings})")
    return f"self.{a}({x})"


def _affine(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    form = (shape[-1], *(1,) * _axes(shape))
    for name, start in (("weight", "ones"), ("bias", "zeros")):
        w.modules.append(f"self.{a}_{name} = nn.Parameter(torch.{start}({shape[-1]}))")
        w.names[f"{node.name}.{name}"] = f"{a}_{name}"
    return f"{x} * self.{a}_weight.view{form} + self.{a}_bias.view{form}"


def _max_pool(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    axes = node.layer.windows(shape)
    padded = _padded(x, axes, ', value=float("-inf")')
    return (f"F.max_pool{len(axes)}d({padded}, {_each(axes, 'size')}, {_each(axes, 'stride')}, "
            f"dilation={_each(axes, 'dilation')})")


def _avg_pool(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    axes = node.layer.windows(shape)
    whole = node.layer.count_include_pad or not any(v.before or v.after for v in axes)
    if any(v.dilation > 1 for v in axes):  # PyTorch has no mean of taps that lie apart: their sum, by ones
        ones = f"{x}.new_ones({(shape[-1], 1, *(v.size for v in axes))})"
        pool = (f"F.conv{len(axes)}d({{}}, {ones}, stride={_each(axes, 'stride')}, "
                f"dilation={_each(axes, 'dilation')}, groups={shape[-1]})")
        over = str(prod(v.size for v in axes))
    else:
        pool, over = f"F.avg_pool{len(axes)}d({{}}, {_each(axes, 'size')}, {_each(axes, 'stride')})", ""
    mean = pool.format(_padded(x, axes))
    over = over if whole else pool.format(_padded(f"torch.ones_like({x})", axes))
    return f"{mean} / {over}" if over else mean


def _over_places(method: str):
    return lambda w, node, shape, a, x: f"{x}.{method}({tuple(range(2, len(shape) + 1))})"


def _maps_only(text: str):
    """A function of PyTorch's that wants places; features get one for its sake."""
    def write(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
        call = text.format(x=x if len(shape) > 1 else f"{x}[..., None]", **_fields(node))
        return call if len(shape) > 1 else f"{call}[..., 0]"

    return write


def _pad(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    sides = [side for pair in reversed(node.layer.sides(shape)) for side in pair]
    return f"F.pad({x}, {tuple(sides)})"


def _adaptive(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    return f"F.adaptive_avg_pool{_axes(shape)}d({x}, {node.layer.size})"


def _pad_channels(w: Writer, node: Node, shape: Shape, a: str, x: str) -> str:
    return f"F.pad({x}, {(*(0, 0) * _axes(shape), 0, node.layer.channels - shape[-1])})"


FORMS = {
    "AdaptiveAvgPool": _adaptive,
    "Add": lambda w, node, shape, a, *xs: " + ".join(xs), "Affine": _affine, "AvgPool": _avg_pool,
    "BatchNorm": _batch_norm, "ChannelShuffle": _maps_only("F.channel_shuffle({x}, {groups})"),
    "Clip": function("torch.clamp({x}, {low}, {high})"),
    "Concat": lambda w, node, shape, a, *xs: f"torch.cat(({', '.join(xs)}), 1)", "Conv": _conv, "Dense": _dense,
    "Dropout": function("F.dropout({x}, {rate}, self.training)"), "Flatten": function("{x}.flatten(1)"),
    "GELU": function("F.gelu({x})"), "GlobalAvgPool": _over_places("mean"), "GlobalMaxPool": _over_places("amax"),
    "LRN": _maps_only("F.local_response_norm({x}, {size}, {alpha}, {beta}, {k})"),
    "LeakyReLU": function("F.leaky_relu({x}, {slope})"), "MaxPool": _max_pool, "Pad": _pad,
    "PadChannels": _pad_channels, "ReLU": function("torch.relu({x})"),
    "ScaledTanh": function("{amplitude} * torch.tanh({slope} * {x})"), "SiLU": function("F.silu({x})"),
    "Sigmoid": function("torch.sigmoid({x})"),
    "Softmax": function("torch.softmax({x}, 1)"),
    "TakeChannels": lambda w, node, shape, a, x: f"{x}[:, {list(node.layer.order)}]",
    "Tanh": function("torch.tanh({x})"),
}
