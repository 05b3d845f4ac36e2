"""A network with its parameters, its preprocessing and the names of its classes: what is trained, saved and asked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from . import modelfile, processors, views
from .calibration import Calibration
from .engine.library import LOCK, compiled, library
from .engine.parameters import ParameterBuffer
from .engine.plan import Plan
from .layers.activation import Softmax
from .modelfile import ModelFileError
from .network import Network
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from .explain.trace import Trace
    from .torch_engine import OnDevice

FORMAT = "1"  # of the metadata; a reader refuses what it does not know
CHUNKS = (64, 16, 4, 1)  # images computed at a time
READ = 1024  # images read at a time: few enough that a file of them which is larger than memory needs little
# Bytes that all activations of a chunk may have. Memory is used again, so that it takes a fraction of them.
MEMORY = min(2**32, processors.memory() / 4)


class Model:
    """A network and everything needed to use it.

    Parameters start from `seed`, each from a generator of its own, so that adding a layer does not change the others;
    from zeros if it is None, which is for parameters that are about to be loaded.
    `preprocessing` says how uint8 images become what the network reads; `classes` names the outputs. `calibration`,
    None or set by whoever fitted one (`pellucid.calibration`), holds for the parameters it was fitted with. `tta`
    (test-time augmentation) names the views of an image that its scores are the mean over: "mirror", the image and its
    mirror image; "shifts", these two moved a little as well (see `views`); "none", the image alone.
    """

    def __init__(self, network: Network, seed: int | None = 0, *, preprocessing: Preprocessing | None = None,
                 classes: Sequence[str] | None = None, record: dict | None = None,
                 calibration: Calibration | None = None, tta: str | bool = views.NONE):
        outputs = network.output_shape[-1]
        if preprocessing and preprocessing.input_shape != network.input_shape:
            raise ValueError(f"the preprocessing makes images of {preprocessing.input_shape}, "
                             f"the network reads {network.input_shape}")
        if classes is not None and len(classes) != outputs:
            raise ValueError(f"the network has {outputs} outputs, but {len(classes)} classes are named")
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError("two classes have the same name; give each its own")
        tta = views.checked(tta, network.input_shape)
        self.network, self.preprocessing, self.calibration, self.tta = network, preprocessing, calibration, tta
        self.classes = [str(c) for c in (classes if classes is not None else range(outputs))]
        self.record = dict(record or {})  # how it was trained, as JSON
        self._buffer = ParameterBuffer(network.parameters())
        self._engine: OnDevice | None = None
        self.version = 0  # of the parameters
        if seed is not None:
            for name, p in network.parameters().items():
                self._buffer.arrays[name][...] = p.init(np.random.default_rng([seed, crc32(name.encode())]), p.shape)
        self._image_bytes = sum(network.activation_bytes.values())
        self._plans: dict[int, Plan] = {}
        self._prepared = False  # whether what depends on the parameters alone is up to date

    @property
    def buffer(self) -> ParameterBuffer:
        """The parameters in one flat array. Who writes to it says so with `changed`."""
        if self._engine is not None:
            self._engine.fetch()
        return self._buffer

    @property
    def engine(self) -> OnDevice | None:
        """PyTorch where it computes the outputs, None where the compiled kernels do."""
        return self._engine

    def use(self, engine: OnDevice | None) -> None:
        """Let PyTorch compute the outputs (see `torch_engine`); with None again the compiled kernels."""
        _ = self.buffer  # the last from the engine before
        self._engine = engine
        self.changed()

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters by name, running statistics included, float32 in PyTorch's layout. Read only: they change as
        the model is trained; see `load_parameters`."""
        arrays = {}
        for name, array in self.buffer.arrays.items():
            arrays[name] = array.view()
            arrays[name].flags.writeable = False
        return arrays

    def load_parameters(self, values: Mapping[str, np.ndarray]) -> None:
        """Copy parameters in. Raises ValueError, changing nothing, unless names and shapes are the network's."""
        mine = self.buffer.arrays
        if set(values) != set(mine):
            missing, extra = sorted(set(mine) - set(values)), sorted(set(values) - set(mine))
            raise ValueError(f"parameters do not fit the network: missing {missing or 'none'}, "
                             f"unknown {extra or 'none'}")
        for name, array in mine.items():
            if np.shape(values[name]) != array.shape:
                raise ValueError(f"{name} must have shape {array.shape}, got {np.shape(values[name])}")
        for name, array in mine.items():
            array[...] = values[name]
        self.changed()

    def changed(self) -> None:
        """Say that the parameters in `buffer` were written to."""
        self._prepared = False
        self.version += 1

    # Asking it.

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's output for float32 images (N, *input_shape), as the network reads them: (N, classes).

        An image's result is the same to the bit whatever stands beside it in the batch. Raises ValueError for
        arrays that do not fit.
        """
        images = np.asarray(images)
        if images.dtype != np.float32:
            raise ValueError(f"logits reads float32 images, as the network does, got {images.dtype}; "
                             "`predict` takes uint8 images")
        return self._run(images)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes), float32, for uint8 images (N, H, W, C), or grey (N, H, W), of the network's size.

        Preprocessing and the model's calibration are included; `preprocessing.prepare` brings a picture to the size.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise ValueError(f"predict reads uint8 images with values 0 to 255, got {images.dtype}; "
                             "`logits` takes float32 images as the network reads them")
        return np.exp(self.log_probabilities(images)).astype(np.float32)

    def log_probabilities(self, images: np.ndarray, *, calibrated: bool = True, tta: str | None = None) -> np.ndarray:
        """Natural logarithms of the probabilities (N, classes), float64; without the calibration if so asked. `tta` is
        the model's unless given.

        `images` are uint8 as `predict` takes them, or float32 as `logits` does; they are read some at a time. Raises
        ValueError for arrays that do not fit, for uint8 without preprocessing, for a network whose output is a map, and
        for an unknown `tta`.
        """
        self.require_classes()
        tta = views.checked(self.tta if tta is None else tta, self.network.input_shape)
        if np.ndim(images) and len(images) > READ:
            parts = (images[i:i + READ] for i in range(0, len(images), READ))
            return np.concatenate([self.log_probabilities(part, calibrated=calibrated, tta=tta) for part in parts])
        images = np.asarray(images)
        if images.dtype == np.uint8:
            self.require_preprocessing()
            if self.network.input_shape[-1] == 1 and images.shape[1:] == self.network.input_shape[:-1]:
                images = images[..., None]
        elif images.dtype != np.float32:
            raise ValueError(f"expected uint8 or float32 images, got {images.dtype}")
        self._require(images)
        # Infinite outputs give NaN, which says what is the matter; a probability may be zero.
        with np.errstate(invalid="ignore", divide="ignore"):
            z = sum(weight * self._scores(view) for view, weight in views.of(tta, images))
            if calibrated and self.calibration:
                z /= self.calibration.temperature
            z -= z.max(axis=-1, keepdims=True)
            return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))

    def _scores(self, images: np.ndarray) -> np.ndarray:
        """What the softmax is taken of, (N, classes), float64: logits, or logarithms where the network ends in it."""
        z = self._run(images).astype(np.float64)
        return np.log(z) if isinstance(self.network.node(self.network.output).layer, Softmax) else z

    def trace(self, image: np.ndarray) -> Trace:
        """Every value for one image, uint8 (H, W, C), grey also (H, W), or float32 as the network reads it: each number
        open to the multiply-adds that made it.

        Raises ValueError for an image that does not fit; what it gives computes when asked, and raises KernelError
        without usable kernels.
        """
        from .explain.trace import Trace

        return Trace(self, image)

    def require_classes(self) -> None:
        """Raise ValueError unless the network answers with one number a class."""
        if len(self.network.output_shape) != 1:
            raise ValueError(f"this network's output is a map of shape {self.network.output_shape}, not a score for "
                             "each class; it classifies nothing")

    def require_preprocessing(self) -> None:
        """Raise ValueError unless the model knows what to do with pixels."""
        if not self.preprocessing:
            raise ValueError("this model has no preprocessing for uint8 images; use `logits` on float32 images")

    def _require(self, images: np.ndarray) -> None:
        if images.shape[1:] != self.network.input_shape or images.ndim != len(self.network.input_shape) + 1:
            raise ValueError(f"expected images of shape (N, {', '.join(map(str, self.network.input_shape))}), "
                             f"got {images.shape}")

    def _run(self, images: np.ndarray) -> np.ndarray:
        self._require(images)
        if self._engine is None and not compiled():
            self.use(_on_torch(self))
        if self._engine is not None:
            return self._engine.outputs(images)
        out = np.empty((len(images), *self.network.output_shape), np.float32)
        done = 0
        with LOCK:
            while done < len(images):
                size = next(c for c in CHUNKS if c == 1 or c <= len(images) - done and c * self._image_bytes <= MEMORY)
                out[done:done + size] = self._plan(size).outputs(images[done:done + size])
                done += size
        return out

    def _plan(self, batch: int) -> Plan:
        if batch not in self._plans:
            known = next(iter(self._plans.values()), None)
            plan = self._plans[batch] = Plan(self.network, self.buffer, batch, prepared=known and known.prepared)
            if self.preprocessing:
                plan.scale[:], plan.shift[:] = self.preprocessing.scale, self.preprocessing.shift
        if not self._prepared:
            self._plans[batch].prepare()
            self._prepared = True
        return self._plans[batch]

    # As data.

    def __reduce__(self):
        return _rebuilt, (self.network, self.preprocessing, self.classes, self.record, self.calibration, self.tta,
                          dict(self.parameters))

    def metadata(self) -> dict[str, str]:
        """Everything but the parameters, as the texts a model file holds."""
        return {
            "pellucid": FORMAT,
            "network": json.dumps(self.network.to_json()),
            "preprocessing": json.dumps(self.preprocessing.to_json() if self.preprocessing else None),
            "classes": json.dumps(self.classes),
            "calibration": json.dumps(self.calibration.to_json() if self.calibration else None),
            "tta": json.dumps(self.tta),
            "record": json.dumps(self.record),
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write one .safetensors file, whole or not at all. Raises OSError where it cannot be written."""
        modelfile.write(path, self.parameters, self.metadata())


def load(path: str | os.PathLike) -> Model:
    """The model in a file. It is checked completely before anything is allocated; nothing in it is executed.

    Raises OSError for a file that cannot be read and ModelFileError for one that is not a complete, consistent model.
    """
    texts = modelfile.read_header(path).metadata
    network, described = _described(path, texts)
    expected = {name: p.shape for name, p in network.parameters().items()}
    tensors, again = modelfile.read(path, expected)
    if again != texts:
        raise ModelFileError(f"{path}: the file changed while it was read")
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ModelFileError(f"{path}: {name} has values that are not finite numbers; the training that wrote it "
                                 "diverged")
    try:
        model = Model(network, None, **described)
    except ValueError as e:
        raise ModelFileError(f"{path}: {e}") from None
    model.load_parameters(tensors)
    return model


def _on_torch(model: Model) -> OnDevice:
    """PyTorch in place of kernels that were not compiled. Raises NoKernels where it is not installed either."""
    try:
        from .torch_engine import OnDevice, device_of
    except ImportError:
        library()  # says what is missing
        raise
    return OnDevice(model, device_of("cpu"))


def _rebuilt(network, preprocessing, classes, record, calibration, tta, parameters) -> Model:
    """A copy of a model from its parts: plans hold addresses and are made anew."""
    model = Model(network, None, preprocessing=preprocessing, classes=classes, record=record, calibration=calibration,
                  tta=tta)
    model.load_parameters(parameters)
    return model


def _described(path, texts: Mapping[str, str]) -> tuple[Network, dict]:
    """The network from a file's metadata, and what else `Model` takes by name."""
    if texts.get("pellucid") != FORMAT:
        found = f"format {texts['pellucid']!r}" if "pellucid" in texts else "no mark of Pellucid's"
        raise ModelFileError(f"{path}: expected a Pellucid model of format {FORMAT!r}, found {found}")
    try:
        keys = ("network", "preprocessing", "classes", "record")
        parts = {key: modelfile.parse_json(texts[key], key) for key in keys}
        parts["calibration"] = modelfile.parse_json(texts.get("calibration", "null"), "calibration")
        parts["tta"] = modelfile.parse_json(texts.get("tta", "false"), "tta")
    except KeyError as e:
        raise ModelFileError(f"{path}: the metadata has no {e.args[0]!r}") from None
    except ModelFileError as e:
        raise ModelFileError(f"{path}: {e}") from None
    classes, record = parts["classes"], parts["record"]
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes) or not isinstance(record, dict):
        raise ModelFileError(f"{path}: classes must be a list of names and record an object")
    try:
        parts["tta"] = views.named(parts["tta"])
        network = Network.from_json(parts["network"])
        preprocessing = Preprocessing.from_json(parts["preprocessing"]) if parts["preprocessing"] is not None else None
        calibration = Calibration.from_json(parts["calibration"]) if parts["calibration"] is not None else None
    except ValueError as e:
        raise ModelFileError(f"{path}: {e}") from None
    return network, {"preprocessing": preprocessing, "classes": classes, "record": record, "calibration": calibration,
                     "tta": parts["tta"]}
