"""The commands export and import: what they write, say and refuse."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from test_cli import assert_one_line, pellucid
from test_exchange import onnx_files, pictures

from pellucid import Model, Preprocessing, data, exchange, zoo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("exchange")
    done = pellucid("train", "digits", "--net", "lenet", "--epochs", "1", "--out", "run", cwd=path)
    assert done.returncode == 0, done.stderr
    return path


def test_export_checks_says_so_and_never_overwrites(folder):
    done = pellucid("export", "run", "--to", "onnx", "--json", cwd=folder)
    said = json.loads(done.stdout)
    assert said["checked"] and said["labels_agreed"] == said["images"] == 512 and said["largest_difference"] < 1e-5
    assert said["files"] == ["run/best.onnx"]
    assert "exists already" in assert_one_line(pellucid("export", "run", "--to", "onnx", cwd=folder))
    done = pellucid("export", "run", "--to", "torch", "--out", "net.py", cwd=folder)
    assert done.returncode == 0 and "checked  in PyTorch on 512 images of digits: 512 labels agree" in done.stdout
    assert (folder / "net.safetensors").exists()
    done = pellucid("export", "run/best.safetensors", "--to", "onnx", "--out", "run/best.safetensors", cwd=folder)
    assert "ends in .onnx" in assert_usage(done)
    assert_usage(pellucid("export", "run", "--to", "coreml", cwd=folder))


def assert_usage(done):
    assert done.returncode == 2 and not done.stdout
    return " ".join(done.stderr.split()).replace("│ ", "")


def test_every_command_opens_an_onnx_file(folder):
    onnx_files.export(exchange.load(folder / "run" / "best.safetensors"), folder / "again.onnx")
    np.savez(folder / "some.npz", images=data.load("digits").images[:3])
    told = {}
    for file in ("again.onnx", "run/best.safetensors"):
        done = [pellucid(*words, "--json", cwd=folder) for words in (
            ("predict", file, "some.npz"), ("evaluate", file, "digits"), ("summary", file))]
        assert [d.returncode for d in done] == [0, 0, 0], [d.stderr for d in done]
        told[file] = [json.loads(d.stdout) for d in done]
    for ours, theirs in zip(*told.values(), strict=True):
        for one in (ours, theirs):
            one.pop("model", None)
        if "layers" in ours:
            ours, theirs = ({k: v for k, v in one.items() if k != "layers"} for one in (ours, theirs))
        assert ours == theirs


def test_a_model_whose_data_are_unknown_is_written_and_said_to_be_unchecked(folder):
    model = exchange.load(folder / "run" / "best.safetensors")
    model.record = {}
    model.save(folder / "bare.safetensors")
    done = pellucid("export", "bare.safetensors", "--to", "onnx", "--json", cwd=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["checked"] is False
    done = pellucid("export", "bare.safetensors", "--to", "onnx", "--out", "b.onnx", "--check", "none/", cwd=folder)
    assert "no such file" in assert_one_line(done) and not (folder / "b.onnx").exists()
    done = pellucid("export", "bare.safetensors", "--to", "onnx", "--out", "b.onnx", "--check", "digits", cwd=folder)
    assert "checked  in ONNX Runtime on 512 images of digits" in done.stdout
    done = pellucid("export", "bare.safetensors", "--to", "torch", "--out", "b.py", cwd=folder)
    assert "checked  " not in done.stdout and "NOT checked" in done.stderr and "--check DATA" in done.stderr


def test_import_tells_a_network_from_elsewhere_what_it_needs(folder):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    w, b = (module[0].weight, module[0].bias), (module[3].weight, module[3].bias)
    graph_of([("Conv", ["x", "w", "b"], {}), ("Relu", [None], {}), ("Flatten", [None], {}),
              ("Gemm", [None, "v", "c"], {"transB": 1})], {"w": w[0], "b": w[1], "v": b[0], "c": b[1]},
             ["N", 1, 8, 8], folder / "net.onnx")
    (folder / "names.txt").write_text("left\nright\n\nnone\n")
    done = pellucid("import", "net.onnx", "--out", "bare_net.safetensors", cwd=folder)
    assert done.returncode == 0 and "give --mean and --std" in done.stderr, done.stderr
    assert "no preprocessing" in assert_one_line(pellucid("predict", "net.onnx", "some.npz", cwd=folder))
    done = pellucid("import", "net.onnx", "--out", "net_model.safetensors", "--mean", "0.5", "--std", "0.25",
                    "--classes", "names.txt", cwd=folder)
    assert done.returncode == 0 and not done.stderr
    model, images = exchange.load(folder / "net_model.safetensors"), pictures(6, (8, 8, 1))
    assert model.classes == ["left", "right", "none"]
    with torch.inference_mode():
        x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        np.testing.assert_allclose(model.predict(images), torch.softmax(module(x), 1).numpy(), atol=1e-5)
    assert "--mean is a number a channel" in assert_usage(
        pellucid("import", "net.onnx", "--out", "x.safetensors", "--mean", "grey", "--std", "1", cwd=folder))
    assert "go together" in assert_usage(
        pellucid("import", "net.onnx", "--out", "x.safetensors", "--mean", "0.5", cwd=folder))
    done = pellucid("import", "net.onnx", "--out", "net_model.safetensors", cwd=folder)
    assert "exists already" in assert_one_line(done)
    done = pellucid("import", "net.onnx", "--out", "x.safetensors", "--mean", "0.5,0.5", "--std", "1,1",
                    cwd=folder)
    assert "mean must have one value for each of 1 channels" in assert_one_line(done)


def graph_of(nodes, weights, shape, path):
    """Write a chain of (operator, inputs, attributes), where None stands for the node before."""
    made, last = [], "x"
    for i, (operator, inputs, attributes) in enumerate(nodes):
        inputs = [last if name is None else name for name in inputs]
        last = f"value{i}"
        made.append(onnx.helper.make_node(operator, inputs, [last], **attributes))
    graph = onnx.helper.make_graph(
        made, "g", [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.helper.make_tensor_value_info(last, 1, None)],
        [onnx.numpy_helper.from_array(w.detach().numpy(), name) for name, w in weights.items()])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


def test_a_graph_is_checked_on_pictures_of_any_size(folder):
    rng = np.random.default_rng(0)
    for i in range(8):
        path = folder / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)).save(path)
    shape = (16, 16, 3)
    model = Model(zoo.build("lenet", input_shape=shape, classes=2), 0, classes=["a", "b"],
                  preprocessing=Preprocessing(shape, (0.5,) * 3, (0.2,) * 3, "crop 18"))
    model.save(folder / "crop.safetensors")
    for to, program in (("onnx", "ONNX Runtime"), ("torch", "PyTorch")):
        done = pellucid("export", "crop.safetensors", "--to", to, "--check", "photos", cwd=folder)
        assert f"checked  in {program} on 8 images of photos: 8 labels agree" in done.stdout, done.stderr
    done = pellucid("import", "crop.onnx", "--out", "back.safetensors", "--input", "32x32x3", cwd=folder)
    assert "exported this graph for inputs of (16, 16, 3), asked for was (32, 32, 3)" in assert_one_line(done)
    done = pellucid("import", "crop.onnx", "--out", "back.safetensors", "--input", "16x16x3", cwd=folder)
    assert done.returncode == 0 and exchange.load(folder / "back.safetensors").network == model.network
