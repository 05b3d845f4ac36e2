"""ONNX files: a graph of operators becomes a network (`load`), and a model a graph (`export`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from ...calibration import Calibration
from ...files import replacing
from ...layers.base import Shape
from ...model import Model
from ...modelfile import ModelFileError, parse_json
from ...network import Network
from ...preprocessing import Preprocessing
from .. import agreement
from ..agreement import Agreement
from .importer import Importer
from .proto import MOST_AXES, Graph, array, checksum, library, read

MARK, CLASSES = "pellucid", "classes"  # metadata of a graph that Pellucid exported, in JSON: what else the model is


def load(path: str | os.PathLike, *, input_shape: Shape | None = None, mean: Sequence[float] | None = None,
         std: Sequence[float] | None = None, fit: str = "crop", classes: Sequence[str] | None = None) -> Model:
    """The network in an .onnx file as a model.

    `input_shape` (H, W, C) is for graphs that read images of any size. `mean` and `std`, one number a channel in units
    where white is 1, and `fit` are how the graph was trained to see pictures (see `Preprocessing`); `classes` are the
    names of its outputs. A graph that Pellucid exported brings all of them, and its size cannot be another. Raises
    OSError for a file that cannot be read, ModelFileError, in one line, for anything that is no network of the layers
    here, and ImportError without the package `onnx`.
    """
    graph = read(path)
    try:
        if MARK in graph.metadata:
            model = _own(graph)
            if input_shape is not None and tuple(input_shape) != (own := model.network.input_shape):
                raise ValueError(f"Pellucid exported this graph for inputs of {own}, asked for was "
                                 f"{tuple(input_shape)}; leave --input out")
        else:
            reader = Importer(graph, shape=input_shape)
            model = Model(reader.network, None, record={"imported": os.path.basename(os.fspath(path))})
            _fill(model, reader.parameters)
        if mean is not None or std is not None:
            model.require_classes()
            channels = model.network.input_shape[-1]
            model.preprocessing = Preprocessing(model.network.input_shape, tuple(mean or (0.0,) * channels),
                                                tuple(std or (1.0,) * channels), fit)
        if classes is not None:
            model = renamed(model, classes)
    except ValueError as e:
        raise ModelFileError(f"{path}: {e}") from None
    return model


def export(model: Model, path: str | os.PathLike,
           check: tuple[str, Sequence[np.ndarray]] | None = None) -> Agreement | None:
    """Write a model as an .onnx file; `exporter.to_proto` says what is in it.

    `check` (see `agreement.images_for`, with `originals`) are images, of any size, that the written file is then asked
    about in ONNX Runtime: only if its answers are the model's, and its pixels those of the model's preprocessing, does
    it take its place, and how well they agree is returned. Raises ValueError where they do not or the model has no ONNX
    form, OSError where the file cannot be written, and ImportError without the packages `onnx` and, to check,
    `onnxruntime`.
    """
    from .exporter import resizing_alone, to_proto

    proto = to_proto(model)
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        if check is None:
            return None
        alone = resizing_alone(proto)
        resized = None if alone is None else session(alone.SerializeToString())
        found = agreement.compare(model, session(temporary), *check, resized=resized)
        found.require("the ONNX file")
        return found


def session(model: str | os.PathLike | bytes) -> Callable[[np.ndarray], np.ndarray]:
    """What an .onnx file, or its content, of one input and one output answers in ONNX Runtime, on the CPU."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; warnings are about other people's graphs
    running = runtime.InferenceSession(os.fspath(model), options, providers=["CPUExecutionProvider"])
    name = running.get_inputs()[0].name
    return lambda images: running.run(None, {name: images})[0]


def renamed(model: Model, classes: Sequence[str]) -> Model:
    """The model with other names for its classes. Raises ValueError for another number of them, or one twice."""
    made = Model(model.network, None, preprocessing=model.preprocessing, classes=classes, record=model.record,
                 calibration=model.calibration, tta=model.tta)
    made.load_parameters(model.parameters)
    return made


def _own(graph: Graph) -> Model:
    """The model that `export` made a graph of: the network in its metadata, with the parameters among its constants.

    Shapes are compared with those before anything is allocated.
    """
    described = parse_json(graph.metadata[MARK], f"the metadata {MARK!r}")
    classes = parse_json(graph.metadata.get(CLASSES, "null"), f"the metadata {CLASSES!r}")
    keys = ("network", "nodes", "preprocessing", "calibration", "tta", "record")
    if not isinstance(described, dict) or set(described) != set(keys):
        raise ValueError(f"the metadata {MARK!r} must be an object of {', '.join(keys)}; export the model again")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes) \
            or not isinstance(described["record"], dict):
        raise ValueError("the metadata's classes must be a list of names and its record an object")
    if described["nodes"] != checksum(graph.proto.node):
        raise ValueError("the graph was changed after Pellucid exported it; export the model again, or remove the "
                         f"metadata {MARK!r} to read it as a graph from elsewhere")
    network = Network.from_json(described["network"])
    for name, p in network.parameters().items():
        tensor = graph.constants.get(name)
        # Of what works on channels alone the graph has axes of size 1 for the places too.
        if tensor is None or tensor.data_type != library().TensorProto.FLOAT \
                or [n for n in tensor.dims if n != 1] != [n for n in p.shape if n != 1]:
            found = "is missing" if tensor is None else f"has shape {tuple(tensor.dims)[:MOST_AXES]}"
            raise ValueError(f"the constant {name} {found}, expected float32 {p.shape}; export the model again")
    given = {kind: described[kind] for kind in ("preprocessing", "calibration")}
    model = Model(
        network, None, classes=classes, record=described["record"],
        preprocessing=given["preprocessing"] and Preprocessing.from_json(given["preprocessing"]),
        calibration=given["calibration"] and Calibration.from_json(given["calibration"]), tta=described["tta"])
    _fill(model, {name: array(graph.constants[name]).reshape(p.shape) for name, p in network.parameters().items()})
    return model


def _fill(model: Model, parameters: dict[str, np.ndarray]) -> None:
    for name, values in parameters.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are not finite numbers")
    model.load_parameters(parameters)
