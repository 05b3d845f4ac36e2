"""What a run is started with: everything that decides its result, as one value that config.json keeps."""

from __future__ import annotations

import hashlib
import math
import numbers
import platform
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from .. import __version__, data, optim, views, zoo
from ..layers.loss import CrossEntropy
from ..network import Network, brief
from ..preprocessing import Preprocessing
from ..schedules import Paced, Schedule, from_json, to_json
from ..summary import by
from . import augment
from .average import default_horizon
from .finetune import SLOW, Beginning
from .plan import Plan, whole
from .recipes import bias_factors, bias_rate, recipe_of
from .recipes import optimizer as default_optimizer

FORMAT = 1  # of config.json


@dataclass(frozen=True)
class Setup:
    """A run's settings. Two runs with equal ones, on equal `data_digest`, end with equal weights, to the bit.

    `optimizer` holds the schedule of the learning rate; `shift`, `mirror` and `cutout` are those of `Augmentation`.
    `averaging` is the number of steps that the weights are averaged over, 0 for none (see `average`); `tta` is that of
    the model (see `views`); `class_weights` multiply the losses of a class's images; `patience` is how many epochs may
    pass without a higher validation before training stops, 0 for any. `init` is the model whose weights training began
    from; its layers, all but those named in `fresh`, learn at `slow` times the rate; biases of batch normalisations at
    `biases` times it. `notes` say in words what was chosen and why. `split` says how many images each part has, and
    `split_digest` which. `data` is the data set's name and `source` what loads it again from anywhere, None for arrays.
    """

    network: Network
    network_name: str
    data: str
    source: str | None
    data_digest: str
    split: dict[str, int]
    split_digest: str
    classes: list[str]
    preprocessing: Preprocessing
    seed: int
    plan: Plan
    optimizer: optim.Optimiser
    label_smoothing: float
    shift: int
    mirror: bool = False
    cutout: int = 0
    averaging: int = 0
    tta: str = views.NONE
    class_weights: list[float] | None = None
    patience: int = 0
    init: str | None = None
    slow: float = 1.0
    biases: float = 1.0
    fresh: list[str] = field(default_factory=list)
    recipe: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def augmentation(self) -> augment.Augmentation:
        return augment.Augmentation(self.shift, self.mirror, self.cutout)

    @property
    def factors(self) -> dict[str, float]:
        """What the learning rate of each parameter is multiplied with, where that is not 1."""
        found, biases = {}, bias_factors(self.network, self.biases)
        for name, p in self.network.parameters().items():
            node = name.rpartition(".")[0]
            factor = 1.0 if self.init is None or node in self.fresh else self.slow
            factor *= biases.get(name, 1.0)
            if p.trainable and factor != 1:
                found[name] = factor
        return found

    def ending(self, step: int, plan: Plan) -> Setup:
        """The same up to a step, and from there on by another plan, the schedule running through the rest of its course
        until the end of that."""
        lr = self.optimizer.lr
        if isinstance(lr, Schedule):
            end = self.plan.steps
            paced = lr if isinstance(lr, Paced) and lr.knots[-1][0] == end else Paced(lr, ((0, 0), (end, end)))
            lr = paced.ending(step, plan.steps)
        return replace(self, plan=plan, optimizer=replace(self.optimizer, lr=lr))

    def revision(self, before: Setup) -> dict:
        """How these settings differ from those `before` in their plan, as JSON."""
        return {"of": before._planned(), "to": self._planned()}

    def _planned(self) -> dict:
        return {"steps": self.plan.steps, "lr": to_json(self.optimizer.lr)}

    def revised(self, revision: dict | None) -> Setup:
        """The settings with the plan of a `revision`; as they are if it is of other settings, or None. Raises
        ValueError for what is no revision."""
        if revision is None:
            return self
        if not isinstance(revision, dict) or set(revision) != {"of", "to"}:
            raise ValueError(f"a revision of the plan cannot be {brief(revision)}")
        if revision["of"] != self._planned():
            return self
        to = revision["to"]
        if not isinstance(to, dict) or set(to) != {"steps", "lr"}:
            raise ValueError(f"a plan cannot be {brief(to)}")
        return replace(self, plan=replace(self.plan, steps=to["steps"]),
                       optimizer=replace(self.optimizer, lr=from_json(to["lr"])))

    def to_json(self) -> dict:
        """As config.json has it; `from_json` reads it back."""
        return {
            "format": FORMAT,
            "versions": {"pellucid": __version__, "python": platform.python_version(), "numpy": np.__version__},
            "data": self.data, "source": self.source, "data_digest": self.data_digest,
            "split": self.split, "split_digest": self.split_digest,
            "classes": self.classes,
            "network_name": self.network_name,
            "seed": self.seed,
            **asdict(self.plan), "epochs": self.plan.epochs,
            "optimizer": self.optimizer.to_json(),
            **{name: getattr(self, name) for name in (
                "label_smoothing", "shift", "mirror", "cutout", "averaging", "tta", "class_weights", "patience", "init",
                "slow", "biases", "fresh", "recipe", "notes")},
            "preprocessing": self.preprocessing.to_json(),
            "network": self.network.to_json(),
        }

    @classmethod
    def from_json(cls, config: dict) -> Setup:
        """What `to_json` wrote. Raises ValueError for anything else."""
        try:
            if config["format"] != FORMAT or isinstance(config["format"], bool):
                raise ValueError(f"its format is {config['format']!r}, this version of Pellucid reads {FORMAT}")
            for name, kinds in _PLAIN.items():
                if not isinstance(config[name], kinds) or isinstance(config[name], bool) and kinds is not bool:
                    raise ValueError(f"{name} cannot be {brief(config[name])}")
            setup = cls(
                network=Network.from_json(config["network"]),
                preprocessing=Preprocessing.from_json(config["preprocessing"]),
                optimizer=optim.from_json(config["optimizer"]),
                tta=views.named(config["tta"]),
                plan=Plan(*(config[name] for name in ("batch_size", "epoch_steps", "steps"))),
                **{name: config[name] for name in _PLAIN},
            )
            setup._check()
            _check_result(config.get("result", {}))
        except KeyError as e:
            raise ValueError(f"it has no {e}") from None
        except (TypeError, AttributeError, ArithmeticError) as e:
            raise ValueError(str(e)) from None
        return setup

    def _check(self) -> None:
        """Raise ValueError for values of the right type that no run can have."""
        shape = self.network.input_shape
        if self.preprocessing.input_shape != shape or self.network.output_shape != (len(self.classes),):
            raise ValueError("network, preprocessing and classes do not fit each other")
        if not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes must be names, got {brief(self.classes)}")
        counts = [whole(f"split: {part}", self.split[part], 1) for part in ("train", "validation", "test")]
        if self.plan.batch_size * self.plan.epoch_steps > counts[0]:
            raise ValueError(f"{self.plan} needs more than {counts[0]} images")
        whole("seed", self.seed, 0)
        _check_label_smoothing(self.label_smoothing)
        _checked_shift(self.shift, shape)
        whole("cutout", self.cutout, 0, min(shape[:2]))
        whole("averaging", self.averaging, 0)
        whole("patience", self.patience, 0)
        for name in ("fresh", "notes"):
            if not all(isinstance(text, str) for text in getattr(self, name)):
                raise ValueError(f"{name} must be texts, got {brief(getattr(self, name))}")
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise ValueError(f"class_weights must be one number a class, got {brief(self.class_weights)}")
        CrossEntropy(0.0, self.class_weights and tuple(self.class_weights))
        if not 0 < self.slow <= 1:
            raise ValueError(f"slow must be above 0 and at most 1, got {self.slow!r}")
        if not 0 < self.biases < math.inf:
            raise ValueError(f"biases must be a number above zero, got {self.biases!r}")

    def deciding(self) -> dict:
        """What decides the result: all but where the data were found, what was said, and versions."""
        return {k: v for k, v in self.to_json().items() if k not in ("source", "init", "notes", "versions")}

    def record(self) -> dict:
        """What the model's file tells of how it was trained."""
        return {k: v for k, v in self.to_json().items() if k not in ("network", "preprocessing", "classes")}


_PLAIN = {
    "network_name": str, "data": str, "source": (str, type(None)), "data_digest": str, "split": dict,
    "split_digest": str, "classes": list, "seed": int, "label_smoothing": (int, float), "shift": int, "mirror": bool,
    "cutout": int, "averaging": int, "class_weights": (list, type(None)), "patience": int,
    "init": (str, type(None)), "slow": (int, float), "biases": (int, float), "fresh": list, "notes": list,
    "recipe": (str, type(None)),
}


def peak(lr) -> float:
    """A learning rate that was given, as float. Raises ValueError for what is not a number above zero."""
    if not isinstance(lr, numbers.Real) or isinstance(lr, bool) or not 0 < lr < math.inf:
        raise ValueError(f"lr must be a number above zero, got {lr!r}")
    return float(lr)


def facts(dataset: data.Dataset, parts: data.Split, begin: Beginning | None) -> dict:
    """The settings that say what the data are; reading all images takes a while, so it is done once."""
    return {
        "data": dataset.name, "data_digest": digest(dataset),
        "split": {part: len(getattr(parts, part)) for part in ("train", "validation", "test")},
        "split_digest": split_digest(parts), "classes": list(dataset.classes),
        "preprocessing": begin.model.preprocessing if begin else Preprocessing.from_images(
            parts.train.images, fit=dataset.fit),
    }


def prepare(
    network: Network | str | tuple[str, dict],
    dataset: data.Dataset,
    plan: Plan,
    known: dict,
    *,
    seed: int,
    source: str | None,
    optimizer: optim.Optimiser | None,
    lr: float | None,
    label_smoothing: float,
    changes: augment.Augmentation,
    class_weights: list[float] | None,
    notes: list[str],
    averaging: bool,
    tta: str | None,
    patience: int | None,
    begin: Beginning | None,
    recipe: str | None,
) -> Setup:
    """The settings of a new run, of which `known` are those that `facts` gives. A network may be named, or named with
    options, which is noted as a choice. Raises ValueError for settings that do not fit each other."""
    shape, classes = dataset.input_shape, len(dataset.classes)
    if optimizer is not None and not isinstance(optimizer, optim.Optimiser):
        raise ValueError(f"optimizer must be one of pellucid.optim, got {brief(optimizer)}; lr alone sets the rate")
    name, options = network if isinstance(network, tuple) else (network, {})
    if isinstance(network, tuple):
        given = "".join(f", {option} {value}" for option, value in options.items())
        notes = [*notes, f"the network is {name}{given}, which suits images of {by(shape)}"]
    if isinstance(network, Network):
        name = "network" if begin is None else "finetuned"
    elif isinstance(name, str):
        network = zoo.build(name, input_shape=shape, classes=classes, **options)
    else:
        raise ValueError(f"network must be a Network or the name of one, got {brief(network)}")
    if begin and network.input_shape != shape:
        raise ValueError(
            f"the model {begin.path} reads images of {by(network.input_shape)}, but those of {dataset.name} are "
            f"{by(shape)}; bring them to that size, or train without it"
        )
    if network.input_shape != shape or network.output_shape != (classes,):
        raise ValueError(
            f"the network maps {network.input_shape} to {network.output_shape}, but the images of {dataset.name} are "
            f"{shape} in {classes} classes; build it with input_shape={shape}, classes={classes}"
        )
    _check_label_smoothing(label_smoothing)
    changes = replace(changes, shift=_checked_shift(changes.shift, shape),
                      cutout=whole("cutout", changes.cutout, 0, min(shape[:2])))
    if tta is None:
        tta = recipe_of(recipe).tta if changes.mirror else views.NONE
        if changes.shift < views.border(tta, shape[:2]):  # training has not seen images moved so far
            tta = views.quick(tta)
    if tta != views.NONE:
        notes = [*notes, "answers are the mean over an image and its mirror image" + (
            ", as they are and moved along the diagonals" if tta == views.SHIFTS else "")]
    if patience is None:
        patience = max(plan.epochs // 2, 10)
    mine = optimizer or default_optimizer(network, plan, lr, new=begin is None)
    return Setup(
        **known, network=network, network_name=name, source=source, seed=seed, plan=plan, optimizer=mine,
        biases=1.0 if optimizer else bias_rate(network, mine, plan), label_smoothing=float(label_smoothing),
        **asdict(changes),
        averaging=default_horizon(plan.epoch_steps, plan.steps) if averaging else 0,
        tta=tta,
        class_weights=class_weights, patience=whole("patience", patience, 0), notes=notes, recipe=recipe,
        **({"init": begin.path, "slow": SLOW, "fresh": begin.fresh} if begin else {}),
    )


def _check_label_smoothing(share) -> None:
    if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0 <= share < 1:
        raise ValueError(f"label_smoothing must be at least 0 and below 1, got {share!r}")


def _checked_shift(shift, shape: tuple[int, ...]) -> int:
    return whole("shift", shift, 0, min(shape[:2]) - 1)


def _check_result(result) -> None:
    """Raise ValueError unless it is what a run that ended before keeps as its result."""
    test = result.get("test") if isinstance(result, dict) else 0
    if isinstance(result, dict) and result:
        whole("result: steps", result.get("steps"), 1)
    known = isinstance(test, dict) and all(
        isinstance(test.get(k), int | float) for k in ("count", "correct", "accuracy", "log_loss"))
    if test is not None and not known:
        raise ValueError(f"result cannot be {brief(result)}")


def check_same(setup: Setup, dataset: data.Dataset, parts: data.Split) -> None:
    """Raise ValueError unless data and split are those the run was started with."""
    if digest(dataset) != setup.data_digest:
        raise ValueError(
            f"the images or labels of {dataset.name} are not those the run was started with ({setup.data}); resume "
            "with the same data, or start a new run"
        )
    if split_digest(parts) != setup.split_digest:
        raise ValueError("the data are split differently than when the run was started, by another version of "
                         "Pellucid or scikit-learn; start a new run")


def digest(dataset: data.Dataset) -> str:
    """A short text that differs for data sets that differ in an image, a label, a class or their order."""
    if dataset.digest is not None:
        return dataset.digest
    own_test = (dataset.test_images, dataset.test_labels) if dataset.has_test else ()
    names = np.frombuffer("\0".join(dataset.classes).encode(), np.uint8)
    return _digest(dataset.images, dataset.labels, *own_test, names)


def split_digest(parts: data.Split) -> str:
    """A short text that differs where an image is in another part."""
    return _digest(*(part.indices.astype(np.int64) for part in (parts.train, parts.validation, parts.test)))


def _digest(*arrays: np.ndarray) -> str:
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(f"{array.dtype.str} {array.shape} ".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()
