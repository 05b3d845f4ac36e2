"""Weights of others become models: state_dicts like those of torchvision, and files fetched, from a server here."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import threading
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from published import MODULES, ResNet
from test_zoo import nchw

import pellucid
from pellucid import zoo
from pellucid.cli import main
from pellucid.exchange import fetching, imagenet, weights
from pellucid.exchange.fetching import Published
from pellucid.exchange.weights import WeightsError, load_state_dict
from pellucid.model import Model

SMALL = (33, 40, 3)


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def module():
    """A ResNet-18 with 1,000 classes, as torchvision's: with weights of its own, and counters."""
    torch.manual_seed(0)
    return ResNet((2, 2, 2, 2)).eval()


@pytest.fixture(scope="module")
def pth_file(module, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18-whatever.pth"
    torch.save(module.state_dict(), path)
    return path


def logits_agree(model, module, images):
    with torch.inference_mode():
        expected = module(nchw(images)).numpy()
    assert np.abs(model.logits(images) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_state_dict_of_torchvisions_loads_as_it_is(module, pth_file, tmp_path):
    images = np.random.default_rng(0).standard_normal((2, *SMALL), np.float32)
    assert any(name.endswith("num_batches_tracked") for name in module.state_dict())
    model = weights.load(pth_file, "resnet18", input_shape=SMALL)
    logits_agree(model, module, images)
    assert model.classes == imagenet.classes() and model.record["imported"]["network"] == "resnet18"
    model.save(tmp_path / "m.safetensors")
    logits_agree(pellucid.load(tmp_path / "m.safetensors"), module, images)
    # The same as .safetensors, of any program's: here what we have just written.
    again = weights.load(tmp_path / "m.safetensors", "resnet18", input_shape=SMALL)
    np.testing.assert_array_equal(again.logits(images), model.logits(images))


def test_parallel_names_and_other_types_are_taken(tmp_path):
    torch.manual_seed(1)
    module = MODULES["resnet20"](4).eval()
    state = {f"module.{k}": v.double() if "fc" in k else v for k, v in module.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "a.pth")
    model = weights.load(tmp_path / "a.pth", "resnet20", classes=list("abcd"))
    assert model.classes == list("abcd") and model.preprocessing is None
    logits_agree(model, module, np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32))


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("bn1.bias"), r"1 missing \(bn1.bias\), none unknown"),
    (lambda s: s.update(more=torch.ones(1)), r"none missing, 1 unknown \(more\)"),
    (lambda s: s.update({"conv1.weight": torch.ones(16, 3, 5, 5)}), r"conv1.weight has shape \(16, 3, 5, 5\)"),
    (lambda s: s.update({"bn1.bias": torch.full((16,), torch.nan)}), "bn1.bias has values that are not finite"),
    (lambda s: s.update({"bn1.bias": torch.full((16,), 1e300, dtype=torch.float64)}), "bn1.bias has values that"),
    (lambda s: s.update({"bn1.bias": torch.ones(16, dtype=torch.int64)}), "bn1.bias holds numbers of type int64"),
    (lambda s: s.update({"fc.weight": torch.ones(64)}), r"fc.weight has shape \(64,\)"),
    (lambda s: s.clear(), "97 missing"),
])
def test_weights_that_do_not_fit(tmp_path, change, message):
    state = dict(MODULES["resnet20"](10).state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=f"a.pth, for resnet20: .*{message}") as refused:
        weights.load(tmp_path / "a.pth", "resnet20")
    assert "\n" not in str(refused.value)


def test_files_are_told_apart_by_content(tmp_path):
    (tmp_path / "a").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match="a pickle that torch.save did not write"):
        load_state_dict(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"nonsense" * 9)
    with pytest.raises(ValueError, match="not a .safetensors file"):
        load_state_dict(tmp_path / "a")
    model = Model(zoo.build("mlp", input_shape=(2, 2, 1), classes=2, hidden=()))
    model.save(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").rename(tmp_path / "b.pth")
    read = load_state_dict(tmp_path / "b.pth")
    np.testing.assert_array_equal(read["dense1.weight"], model.parameters["dense1.weight"])


# ImageNet.


def test_the_names_of_the_classes():
    names = imagenet.classes()
    assert len(names) == len(set(names)) == 1000 and all(name == name.strip() and name for name in names)
    assert [names[i] for i in (0, 207, 281, 999)] == ["tench", "golden retriever", "tabby", "toilet tissue"]


def test_pictures_are_prepared_as_torchvision_does(module, pth_file):
    """Resize(256), CenterCrop(224), ToTensor, Normalize, written out; then the network: the same probabilities."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).resize((300, 400), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG")
    picture = Image.open(io.BytesIO(file.getvalue()))
    scaled = picture.convert("RGB").resize((256, 341), Image.Resampling.BILINEAR).crop((16, 58, 240, 282))
    x = (torch.tensor(np.array(scaled)).permute(2, 0, 1).float() / 255 - torch.tensor(imagenet.MEAN)[:, None, None])
    x /= torch.tensor(imagenet.STD)[:, None, None]
    with torch.inference_mode():
        expected = torch.softmax(module(x[None]), 1).numpy()
    model = weights.load(pth_file, "resnet18")
    assert model.preprocessing.fit == "crop 256"
    got = model.predict(model.preprocessing.prepare(Image.open(io.BytesIO(file.getvalue())))[None])
    np.testing.assert_allclose(got, expected, rtol=2e-4)


@pytest.mark.parametrize(("size", "resize", "fit"), [
    (224, 256, "crop 256"), (224, 232, "crop 232"), (160, 256, "crop 183"), (448, 256, "crop 512"),
])
def test_the_resizing_grows_with_the_images(size, resize, fit):
    assert imagenet.preprocessing((size, size - 10, 3), resize).fit == fit


# Fetching.


@contextlib.contextmanager
def server(files: dict[str, bytes], **behaviour):
    """An address where these files are; `cut` ends answers early, `status` and `location` answer otherwise."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path.lstrip("/"))
            self.send_response(behaviour.get("status", 404 if content is None else 200))
            if "location" in behaviour:
                self.send_header("Location", behaviour["location"])
            if not behaviour.get("endless"):
                self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who has read enough hangs up
                self.wfile.write((content or b"")[:behaviour.get("cut")])

        def log_message(self, *_):
            pass

    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def published(monkeypatch, tmp_path):
    """resnet20 as if it were published; returns its file's name and content."""
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file = io.BytesIO()
    torch.manual_seed(2)
    torch.save(MODULES["resnet20"](1000).state_dict(), file)
    name = f"resnet20-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(fetching.PUBLISHED, "resnet20", Published(name, 232))
    return name, file.getvalue()


def kept(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache" / "weights").iterdir())


def test_published_weights_are_fetched_once_and_checked_each_time(published, monkeypatch, tmp_path):
    name, content = published
    steps = []
    with server({name: content}) as (address, asked):
        monkeypatch.setenv("PELLUCID_WEIGHTS_URL", address)
        model = weights.published("resnet20", progress=lambda *step: steps.append(step))
        assert model.classes[0] == "tench" and model.preprocessing.fit == "crop 33"
        assert steps[-1] == (f"fetching {name}", len(content), len(content))
        again = weights.published("resnet20")
        assert asked == [f"/{name}"] and kept(tmp_path) == [name]
        np.testing.assert_array_equal(again.parameters["fc.weight"], model.parameters["fc.weight"])
        path = tmp_path / "cache" / "weights" / name
        path.write_bytes(content[:-1])  # damaged since: it is fetched again
        assert fetching.fetch("resnet20").read_bytes() == content and len(asked) == 2


@pytest.mark.parametrize(("files", "behaviour", "message"), [
    ({}, {}, "404 Not Found"), (None, {"status": 503}, "503 Service Unavailable"),
    (None, {"cut": 1000}, "cut off after 1,000 of|IncompleteRead"),
    (b"another file", {}, "its SHA-256 begins with [0-9a-f]{8}, expected [0-9a-f]{8}"),
    (None, {"cut": 1000, "endless": True}, "its SHA-256 begins with"),
    (None, {"status": 302, "location": "file:///etc/passwd"}, "cannot fetch"),
])
def test_what_does_not_arrive_whole_is_not_kept(published, monkeypatch, tmp_path, files, behaviour, message):
    name, content = published
    files = {name: content if files is None else files} if files != {} else {}
    with server(files, **behaviour) as (address, _):
        monkeypatch.setenv("PELLUCID_WEIGHTS_URL", address + "/")
        with pytest.raises(OSError, match=message) as failed:
            fetching.fetch("resnet20")
    assert "\n" not in str(failed.value) and kept(tmp_path) == []


@pytest.mark.parametrize("endless", [False, True])
def test_a_bomb_is_not_fetched(published, monkeypatch, tmp_path, endless):
    name, content = published
    monkeypatch.setattr(fetching, "LARGEST", 1000)
    with server({name: content}, endless=endless) as (address, _):
        monkeypatch.setenv("PELLUCID_WEIGHTS_URL", address)
        with pytest.raises(OSError, match="larger than the 1,000 bytes"):
            fetching.fetch("resnet20")
    assert kept(tmp_path) == []


def test_no_network_is_one_line(published, monkeypatch, tmp_path):
    with server({}) as (address, _):
        pass  # nobody answers there any more
    monkeypatch.setenv("PELLUCID_WEIGHTS_URL", address)
    with pytest.raises(OSError, match=f"^cannot fetch {address}/resnet20-.*Connection refused; get the file by other"):
        fetching.fetch("resnet20")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("address", ["file:///tmp", "ftp://x", "nonsense", "https://"])
def test_addresses_that_are_none(published, monkeypatch, address):
    monkeypatch.setenv("PELLUCID_WEIGHTS_URL", address)
    with pytest.raises(ValueError, match="PELLUCID_WEIGHTS_URL must be an address"):
        fetching.fetch("resnet20")


def test_https_does_not_lead_to_http():
    request = fetching.urllib.request.Request("https://somewhere/a")
    with pytest.raises(OSError, match="from https to an address that is not"):
        fetching._SameSecurity().redirect_request(request, None, 302, "", {}, "http://somewhere/a")


def test_the_table_is_of_networks_that_there_are():
    assert set(fetching.PUBLISHED) <= set(zoo.names()) and fetching.ADDRESS.startswith("https://")
    for name, (file, _) in fetching.PUBLISHED.items():
        assert file.startswith(name) and len(fetching._digits(file)) == 8 and int(fetching._digits(file), 16) >= 0
    with pytest.raises(ValueError, match="no published weights for 'lenet'; there are for alexnet, resnet18"):
        fetching.fetch("lenet")


# The command.


@pytest.fixture
def command(capsys):
    """Runs a command line here: (exit status, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return Done(ended.value.code, *capsys.readouterr())

    return run


def test_import_writes_a_model_that_predicts(published, monkeypatch, tmp_path, command):
    name, content = published
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40), "red").save("red.png")
    with server({name: content}) as (address, _):
        monkeypatch.setenv("PELLUCID_WEIGHTS_URL", address)
        done = command("import", "resnet20", "--json")
    assert done.status == 0, done.stderr
    described = json.loads(done.stdout)
    assert described["model"] == "resnet20.safetensors" and described["classes"] == imagenet.classes()
    done = command("predict", "resnet20.safetensors", "red.png", "--json")
    assert done.status == 0 and json.loads(done.stdout)["predictions"][0]["class"] in imagenet.classes()
    done = command("import", "resnet20")
    assert done.status == 1 and "resnet20.safetensors exists already" in done.stderr
    (tmp_path / name).write_bytes(content)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"n{i}" for i in range(1000)))
    done = command("import", name, "--net", "resnet20", "--out", "b.safetensors", "--mean", "0.5,0.5,0.5",
                   "--std", "1,1,1", "--classes", "names.txt", "--fit", "letterbox")
    assert done.status == 0 and done.stdout.startswith("b.safetensors: resnet20, 72 layers, 334,")
    model = pellucid.load("b.safetensors")
    assert model.classes[3] == "n3"
    assert model.preprocessing == pellucid.Preprocessing((32, 32, 3), (0.5,) * 3, (1.0,) * 3, "letterbox")


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (("nothing",), 1, "nothing: no such file, and no network with published weights; there are alexnet"),
    (("nothing.pth", "--net", "resnet18"), 1, "no such file"),
    (("x.pth", "--net", "alexnot"), 1, "no network is called"),
    (("resnet18", "--mean", "1,1,1"), 2, "--mean and --std go together"),
    (("resnet18", "--fit", "crop"), 2, "--fit needs"), ((".",), 2, "say with --net"),
    (("resnet18", "--out", "a.pth"), 2, "ends in .safetensors"), (("resnet18",), 1, "cannot fetch http://127.0.0.1:9"),
    (("x", "--net", "lenet", "--mean", "a", "--std", "1"), 2, "--mean is a number a channel"),
])
def test_import_refuses(tmp_path, monkeypatch, command, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path.parent / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PELLUCID_WEIGHTS_URL", "http://127.0.0.1:9")
    done = command("import", *arguments)
    assert done.status == status and message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
