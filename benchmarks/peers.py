"""The peers of `inference.py`: each takes a network of PyTorch and images and becomes a function that returns logits.

All compute in float32 with a given number of threads, and get what their makers advise for speed.

- PyTorch: `inference_mode`; compiled, with the weights frozen, so that batch normalisation is folded into them.
- ONNX Runtime: all graph optimisations, one pool of threads. The model comes from `torch.onnx.export`.
- OpenVINO: the same file. Its latency hint gives all threads to one request; its throughput hint gives each request a
  thread, so a batch is handed over in as many parts.
- ncnn: the model comes from pnnx, which traces PyTorch's. It has no batches: a single image gets all threads, and of
  several each thread takes its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

Logits = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Job:
    """What there is to run, and a folder for the files it takes."""

    net: torch.nn.Module  # for inference
    images: torch.Tensor  # N, C, H, W
    threads: int
    folder: Path

    def onnx(self) -> Path:
        """The network for batches of this size, exported once."""
        path = self.folder / "net.onnx"
        if not path.exists():
            with _silence():
                torch.onnx.export(self.net, (self.images,), path, input_names=["x"], output_names=["y"], dynamo=True,
                                  verbose=False)
        return path


def pytorch(job: Job, layout: torch.memory_format, compiled: bool) -> Logits:
    net, x = job.net.to(memory_format=layout), job.images.contiguous(memory_format=layout)
    forward = torch.compile(net, options={"freezing": True}) if compiled else net

    def run() -> np.ndarray:
        with torch.inference_mode():
            return forward(x).numpy()

    return run


def onnx_runtime(job: Job) -> Logits:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    session = onnxruntime.InferenceSession(job.onnx(), options, providers=["CPUExecutionProvider"])
    images = job.images.numpy()
    return lambda: session.run(None, {"x": images})[0]


def openvino(job: Job, hint: str) -> Logits:
    import openvino

    parts = np.split(job.images.numpy(), job.threads if hint == "THROUGHPUT" else 1)
    core = openvino.Core()
    model = core.read_model(job.onnx())
    model.reshape(parts[0].shape)
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": hint})
    requests = [compiled.create_infer_request() for _ in parts]

    def run() -> np.ndarray:
        for request, part in zip(requests, parts, strict=True):
            request.start_async({0: part}, share_inputs=True)
        for request in requests:
            request.wait()
        return np.concatenate([request.get_output_tensor(0).data for request in requests])

    return run


def ncnn(job: Job) -> Logits:
    import ncnn as library
    import pnnx

    with _silence():
        pnnx.export(job.net, str(job.folder / "net.pt"), (job.images[:1],), fp16=False)
    images, workers = job.images.numpy(), min(job.threads, len(job.images))
    net = library.Net()
    net.opt.num_threads = job.threads // workers
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(job.folder / "net.ncnn.param")) or net.load_model(str(job.folder / "net.ncnn.bin")):
        raise RuntimeError("ncnn does not load what pnnx wrote")

    def one(image: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("in0", library.Mat(image))
        return np.array(extractor.extract("out0")[1])

    pool = ThreadPoolExecutor(workers)
    return lambda: np.stack(list(pool.map(one, images)) if workers > 1 else [one(image) for image in images])


def peers(batch: int, threads: int) -> dict[str, tuple[list[str], Callable[[Job], Logits]]]:
    """Those for that many images and threads, by name: the packages each needs, and what makes it."""
    found = {}
    for compiled in (False, True):
        for name, layout in (("default", torch.contiguous_format), ("channels_last", torch.channels_last)):
            title = f"pytorch {name}{', compiled' if compiled else ''}"
            found[title] = ["torch"], partial(pytorch, layout=layout, compiled=compiled)
    export = ["onnx", "onnxscript"]
    found["onnxruntime"] = [*export, "onnxruntime"], onnx_runtime
    found["openvino latency"] = [*export, "openvino"], partial(openvino, hint="LATENCY")
    if threads > 1 and batch % threads == 0:
        found["openvino throughput"] = [*export, "openvino"], partial(openvino, hint="THROUGHPUT")
    found["ncnn"] = ["ncnn", "pnnx"], ncnn
    return found


@contextmanager
def _silence() -> Iterator[None]:
    """Without what exporters print, some from other processes, so that standard output stays for the record."""
    kept = [os.dup(stream) for stream in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
        for opened in (*kept, nowhere):
            os.close(opened)
