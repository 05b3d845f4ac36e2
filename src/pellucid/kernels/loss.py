"""Softmax cross entropy with label smoothing: the loss of each image and the gradient to the logits, in one go."""

from __future__ import annotations

import halide as hl

from .activation import over_channels
from .machine import LANES_OF_BLOCK as BLOCK
from .machine import Machine, Program, blocked, kernel, pin, variables
from .pointwise import exp, f32, strict

IMAGES_OF_TASK = 16


@kernel("cross_entropy")
def cross_entropy(machine: Machine) -> Program:
    """loss[n] = -weight sum over classes of target log(softmax(logits)); dlogits = scale weight (softmax(logits) -
    target), the weight being that of the label.

    target = (1 - smoothing) [class = label] + smoothing / classes, as torch.nn.CrossEntropyLoss has it. `logits` is a
    feature vector (x = y = 0 only). Spare lanes of dlogits are 0.
    """
    logits = blocked("logits")
    labels, weights = hl.ImageParam(hl.Int(32), 1, "labels"), hl.ImageParam(hl.Float(32), 1, "weights")
    classes = hl.Param(hl.Int(32), "channels")
    smoothing, scale = hl.Param(hl.Float(32), "smoothing"), hl.Param(hl.Float(32), "scale")
    c, X, Y, b, n = variables("c x y b n")
    blocks = (classes + (BLOCK - 1)) / BLOCK

    # The algorithm, on logits shifted by their largest: nothing overflows, whatever their size.
    def exists(c, b):
        return b * BLOCK + c < classes

    def plus(p, q):
        return p + q

    def shifted(c, b, n):
        return logits[c, 0, 0, b, n] - peak[n]

    def target(c, b, n):
        on_label = hl.select(b * BLOCK + c == labels[n], f32(1) - smoothing, f32(0))
        return on_label + smoothing / hl.cast(hl.Float(32), classes)

    def weight(n):
        return weights[hl.clamp(labels[n], 0, classes - 1)]

    def over_classes(name, term):
        return over_channels(plus, f32(0), lambda c, b, n: hl.select(exists(c, b), term(c, b, n), f32(0)),
                             name, blocks, [n])

    lowest = hl.Float(32).min()
    peak, peak_stages = over_channels(
        hl.max, lowest, lambda c, b, n: hl.select(exists(c, b), logits[c, 0, 0, b, n], lowest), "peak", blocks, [n])
    total, total_stages = over_classes("total", lambda c, b, n: exp(shifted(c, b, n)))
    aligned, aligned_stages = over_classes("aligned", lambda c, b, n: target(c, b, n) * shifted(c, b, n))
    loss, dlogits = hl.Func("loss"), hl.Func("dlogits")
    loss[n] = strict(weight(n) * (hl.log(total[n]) - aligned[n]))  # the targets sum to 1
    probability = exp(logits[c, X, Y, b, n] - peak[n]) / total[n]
    slope = scale * weight(n) * (probability - target(c, b, n))
    dlogits[c, X, Y, b, n] = strict(hl.select(exists(c, b), slope, f32(0)))

    # The schedule: the logarithm is one a image, so `loss` stays scalar.
    task, fine = hl.Var("task"), hl.TailStrategy.GuardWithIf
    pin(dlogits.output_buffer())
    for output in (loss, dlogits):
        output.split(n, task, n, IMAGES_OF_TASK, fine).parallel(task)
    dlogits.bound(c, 0, BLOCK).vectorize(c)
    for whole in (peak, total):
        whole.compute_root().split(n, task, n, IMAGES_OF_TASK, fine).parallel(task)
    for lanes, whole in (peak_stages, total_stages):
        lanes.compute_at(whole, n)
    aligned_stages[0].compute_at(loss, n)
    aligned.compute_at(loss, n)
    return Program([loss, dlogits], [logits, labels, weights, classes, smoothing, scale])
