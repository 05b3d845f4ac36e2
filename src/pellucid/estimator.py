"""`ImageClassifier`: a network that scikit-learn can train, search, cross-validate and put into a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from math import isqrt, prod
from operator import index
from time import perf_counter

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import zoo
from .data.arrays import spread
from .engine.library import library
from .layers.base import Shape
from .model import Model
from .network import Network, brief, checked_shape
from .preprocessing import Preprocessing
from .training import augment
from .training import plan as planning
from .training.plan import Plan
from .training.recipes import bias_factors, bias_rate, initialise, label_smoothing, networks, optimizer, recipe_of
from .training.setup import peak
from .training.step import Diverged, TrainStep
from .training.whitening import LEAST_IMAGES

LEAST_SIDE = 8  # pixels: the smallest square that rows are taken for, and the smallest image that is convolved
HIDDEN = (64, 64)  # layers of the default network for what is no such image
MOST_EPOCHS = 400  # where nothing is asked for: a few samples need not be seen more often
# Standard deviations. Among n training values none is further than sqrt(n) from their mean; what is asked later may be.
FURTHEST = 1e6
CHUNK = 1024  # samples standardised at a time when asked


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network as a scikit-learn classifier.

    X holds a sample in each row (n_samples, n_features), or images (N, H, W) or (N, H, W, C); a row is an image with
    its pixels in that order. Numbers of any type and range will do: each channel of an image, and each feature of what
    is no image, is brought to mean 0 and deviation 1 over the training data. See docs/sklearn.md.

    network: a Network, the name of one in the zoo, or None: for images of at least 8x8 pixels the default of
        `pellucid.fit`, else dense layers of 64, 64 and the classes.
    epochs, time: how long to train, as for `pellucid.fit`. What `time` allows depends on the machine and its load, so
        that only `epochs` (or neither) makes a result repeatable.
    image_shape: what a row is: (H, W), (H, W, C), or (n_features,) for no image. By default the network's
        input shape where a Network is given; else a square grey image where n_features is the square of 8 or more.
    batch_size, lr, label_smoothing, shift: as for `pellucid.fit`. Shifted images are filled with 0, or the value in X
        nearest to it; mirrored ones with what lies inside their border.
    mirror: whether images are mirrored left to right every other epoch, as suits photographs.
    random_state: None, an integer or a numpy RandomState. Equal integers give equal results to the bit.
    verbose: whether to print a line for epochs, at most one a second.

    All of X is trained on and the last weights are kept; holding out is left to cross-validation. Fitted, it has
    `classes_`, `n_features_in_`, `feature_names_in_` (where X had names), `input_shape_` (of a sample),
    `scaler_` (a StandardScaler of the channels or features), `model_` (a `pellucid.Model`, which takes uint8 images
    itself where X held the pixels of images), `n_iter_` (epochs) and `history_` (a dict an epoch).
    """

    def __init__(self, network=None, *, epochs=None, time=None, image_shape=None, batch_size=None, lr=None,
                 label_smoothing=None, shift=None, mirror=False, random_state=None, verbose=False):
        self.network = network
        self.epochs = epochs
        self.time = time
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.lr = lr
        self.label_smoothing = label_smoothing
        self.shift = shift
        self.mirror = mirror
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X, y) -> ImageClassifier:
        """Train on samples X and labels y (n_samples,), numbers or texts, from new weights; returns itself.

        Raises ValueError for parameters and data that do not fit, and `pellucid.Diverged` when the loss or the weights
        are no longer finite. Ctrl-C passes on.
        """
        started = perf_counter()
        if self.epochs is not None and self.time is not None:
            raise ValueError("give epochs or time, not both")
        budget = None if self.time is None else planning.duration(self.time)
        lr = None if self.lr is None else peak(self.lr)
        X, form = _rows(X)
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y holds {len(classes)} class, a classifier needs at least 2")
        shape = _input_shape(self.network, self.image_shape, form, X.shape[1])
        network = _built(self.network, shape, len(classes))
        smoothing = label_smoothing(shape) if self.label_smoothing is None else self.label_smoothing
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        plan = planning.plan(len(X), batch=self.batch_size, epochs=self.epochs)
        if self.epochs is None:
            plan = replace(plan, steps=min(plan.steps, plan.epoch_steps * MOST_EPOCHS))
        data = _Training(X, labels, shape, seed, self._augmentation(shape), *_statistics(X, shape))
        model = Model(network, seed, preprocessing=data.preprocessing(), classes=[str(c) for c in classes])
        if budget is not None:
            pace = _pace(data, network, plan, smoothing)
            plan = planning.plan_for_time(plan, budget - (perf_counter() - started), pace)
        chosen = optimizer(network, plan, lr)
        biases = bias_rate(network, chosen, plan)
        initialise(model, data.some(), biases)
        step = TrainStep(model, plan.batch_size, chosen, factors=bias_factors(network, biases),
                         label_smoothing=smoothing, seed=seed, precision=library().precisions[0])
        history = self._train(step, data, plan)
        self.classes_, self.input_shape_, self.scaler_ = classes, shape, data.scaler
        self.model_, self.history_, self.n_iter_ = model, history, plan.epochs
        return self

    def predict(self, X) -> np.ndarray:
        """The most probable class of each sample, from `classes_`: (n_samples,)."""
        best = self._ask("logits", X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities (n_samples, n_classes), float64, in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X) -> np.ndarray:
        """Natural logarithms of the probabilities (n_samples, n_classes), float64."""
        return self._ask("log_probabilities", X)

    def decision_function(self, X) -> np.ndarray:
        """The network's scores (n_samples, n_classes); of two classes (n_samples,): by how much the second's is higher.

        `predict` answers with the highest; the softmax of the scores are the probabilities.
        """
        scores = self._ask("logits", X).astype(np.float64)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def _augmentation(self, shape: Shape) -> augment.Augmentation:
        """How samples of `shape` are changed. Raises ValueError for more than they bear."""
        image = len(shape) == 3
        if not isinstance(self.mirror, bool) or self.mirror and not image:
            raise ValueError(f"mirror must be {'True or False' if image else 'False for what is no image'}, "
                             f"got {self.mirror!r}")
        shift = augment.default_shift(shape) if self.shift is None else planning.whole(
            "shift", self.shift, 0, min(shape[:2]) - 1 if image else 0)
        return augment.Augmentation(shift, self.mirror)

    def _train(self, step: TrainStep, data: _Training, plan: Plan) -> list[dict]:
        """Go through the plan; returns the history."""
        history, shown = [], 0.0
        for epoch in range(1, plan.epochs + 1):
            began = perf_counter()
            losses = [step(images, labels) for images, labels in data.batches(plan, epoch)]
            now = perf_counter()
            history.append({"epoch": epoch, "step": step.steps, "lr": step.lr, "train_loss": float(np.mean(losses)),
                            "seconds": now - began})
            if self.verbose and (epoch in (1, plan.epochs) or now - shown >= 1):
                shown = now
                print(f"epoch {epoch}/{plan.epochs}  loss {history[-1]['train_loss']:.4f}", flush=True)
        # The last step may have made them so, and batch normalisation hides what overflows before it from the loss.
        for name, values in step.model.parameters.items():
            if not np.isfinite(values).all():
                raise Diverged(step.steps, f"parameter {name}", step.lr)
        return history

    def _ask(self, question: str, X) -> np.ndarray:
        """The answers of a method of `model_` to samples that are checked and standardised first."""
        check_is_fitted(self)
        X, form = _rows(X)
        X = validate_data(self, X, reset=False)
        _check_form(form, self.input_shape_)
        answer = getattr(self.model_, question)
        return np.concatenate([answer(_standardised(X[i:i + CHUNK], self.input_shape_, self.scaler_))
                               for i in range(0, len(X), CHUNK)])


@dataclass(frozen=True, eq=False)
class _Training:
    """Samples X (n, features) of any number type with labels (n,), and how a network of `shape` gets to see them."""

    X: np.ndarray
    labels: np.ndarray
    shape: Shape
    seed: int
    augmentation: augment.Augmentation
    scaler: StandardScaler
    low: float
    high: float
    whole: bool  # whether all values are whole numbers

    def batches(self, plan: Plan, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of an epoch: float32 (batch, *shape) and labels."""
        order = augment.order(self.seed, epoch, len(self.X))
        change = self.augmentation.of_epoch(self.seed, epoch, len(self.X))
        # A shift fills with zeros what comes into view: here with background, which is 0 or the value nearest to it.
        value = min(max(0, self.low), self.high)
        background = _standardised(np.full((1, prod(self.shape)), value), self.shape, self.scaler)
        for first in range(0, plan.length(epoch) * plan.batch_size, plan.batch_size):
            chosen = order[first:first + plan.batch_size]
            images = _standardised(self.X[chosen], self.shape, self.scaler)
            if self.augmentation != augment.Augmentation():
                images = change(images - background, chosen) + background
            yield images, self.labels[chosen]

    def some(self) -> np.ndarray:
        """A few samples as the network reads them, by which first layers are set."""
        return _standardised(self.X[spread(len(self.X), LEAST_IMAGES)], self.shape, self.scaler)

    def preprocessing(self) -> Preprocessing | None:
        """That of the model for uint8 images: where X holds pixels by the rules of `data.arrays`, else None."""
        if len(self.shape) != 3 or self.low < 0 or self.high > 255 or not (self.high <= 1 or self.whole):
            return None
        white = 1 if self.high <= 1 and self.X.dtype.kind == "f" else 255
        mean, std = ((values / white).tolist() for values in (self.scaler.mean_, self.scaler.scale_))
        return Preprocessing(self.shape, mean, std) if min(std) >= 1e-6 else None


def _rows(X) -> tuple[np.ndarray, Shape | None]:
    """X as rows, and the shape its images had: None where it had rows already, or is what scikit-learn will refuse."""
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    form = tuple(X.shape[1:])
    if len(form) > 3:
        raise ValueError(f"X must be rows (n_samples, n_features) or images (N, H, W) or (N, H, W, C), got {X.shape}")
    if len(form) < 2:
        return X, None
    return np.asarray(X).reshape(len(X), prod(form)), form


def _input_shape(network, image_shape, form: Shape | None, features: int) -> Shape:
    """The shape of a sample from what the parameters and X say of it. Raises ValueError where they disagree."""
    shape = None
    if image_shape is not None:
        try:
            shape = tuple(map(index, image_shape))
        except TypeError:
            raise ValueError(
                f"image_shape must be (H, W), (H, W, C) or (n_features,), got {brief(image_shape)}") from None
        if len(shape) == 2 and not (isinstance(network, Network) and network.input_shape == shape):
            shape = (*shape, 1)
        shape = checked_shape(shape, "image_shape")
    if isinstance(network, Network):
        if shape not in (None, network.input_shape):
            raise ValueError(f"image_shape says {shape}, but the network reads {network.input_shape}; leave it out")
        shape = network.input_shape
    if shape is None and form is not None:
        shape = form if len(form) == 3 else (*form, 1)
        if shape[2] > 4:
            raise ValueError(f"X holds images of {shape[2]} channels, expected 1 to 4; channels come last, and where "
                             f"there are so many, say image_shape={shape}")
    elif shape is None:
        side = isqrt(features)
        shape = (side, side, 1) if side >= LEAST_SIDE and side * side == features else (features,)
    if prod(shape) != features:
        raise ValueError(f"X has {features} features, but samples of {shape} have {prod(shape)}; give image_shape or "
                         "the network another shape")
    _check_form(form, shape)
    return shape


def _check_form(form: Shape | None, shape: Shape) -> None:
    """Raise ValueError for images of another shape; where their last side is 1 it may be missing."""
    if form is not None and form != shape and (*form, 1) != shape:
        raise ValueError(f"X holds images of shape {form}, expected {shape}")


def _built(network, shape: Shape, classes: int) -> Network:
    """The network for samples of `shape`. Raises ValueError for one that does not fit."""
    if network is None:
        image = len(shape) == 3 and min(shape[:2]) >= LEAST_SIDE
        name, options = networks(shape, recipe_of(None))[0] if image else ("mlp", {"hidden": HIDDEN})
        return zoo.build(name, input_shape=shape, classes=classes, **options)
    if isinstance(network, str):
        try:
            return zoo.build(network, input_shape=shape, classes=classes)
        except ValueError as e:
            hint = "; give image_shape=(H, W) or (H, W, C)" if len(shape) == 1 and network in zoo.names() else ""
            raise ValueError(f"{e}{hint}") from None
    if not isinstance(network, Network):
        raise ValueError(f"network must be a Network or the name of one, got {brief(network)}")
    if network.output_shape != (classes,):
        raise ValueError(f"the network's output has shape {network.output_shape}, expected {(classes,)}: a score for "
                         "each class in y")
    return network


def _statistics(X: np.ndarray, shape: Shape) -> tuple[StandardScaler, float, float, bool]:
    """Mean and deviation of each channel (feature, where there are none), the least and the highest value of all, and
    whether all are whole numbers. Some samples at a time, so that no copy of X is made."""
    scaler, low, high, whole = StandardScaler(), np.inf, -np.inf, True
    step = max(2**22 // X.shape[1], 1)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(X), step):
            block = X[first:first + step].reshape(-1, shape[-1])
            scaler.partial_fit(block)
            low, high = min(low, block.min()), max(high, block.max())
            whole = whole and (block.dtype.kind != "f" or bool(np.array_equal(block, np.rint(block))))
    if not np.isfinite([scaler.mean_, scaler.var_]).all():
        raise ValueError(f"X reaches from {low:g} to {high:g}, too far for float64 to hold its variance; scale it down")
    return scaler, float(low), float(high), whole


def _standardised(X: np.ndarray, shape: Shape, scaler: StandardScaler) -> np.ndarray:
    """Samples as the network reads them, float32 (n, *shape), computed in float64 whatever their type."""
    with np.errstate(over="ignore"):
        z = (X.reshape(-1, *shape) - scaler.mean_) / scaler.scale_
    return np.clip(z, -FURTHEST, FURTHEST).astype(np.float32)


def _pace(data: _Training, network: Network, plan: Plan, smoothing: float) -> planning.Pace:
    """How fast training goes, measured on a model of which nothing is kept."""
    step = TrainStep(Model(network, data.seed), plan.batch_size, replace(optimizer(network, plan), lr=planning.STILL),
                     label_smoothing=smoothing, precision=library().precisions[0])
    watch = planning.Stopwatch()
    for epoch in count(1):
        for images, labels in data.batches(plan, epoch):
            step(images, labels)
            if watch.requested:
                return planning.Pace(watch.step_seconds, 0.0, 0.0)
