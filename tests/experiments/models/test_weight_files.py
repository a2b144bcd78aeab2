"""Files of weights on disk and from the network, among them files that mean harm."""

import functools
import hashlib
import http.server
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from kerasrestart.experiments.models import weight_files
from kerasrestart.experiments.models.weight_files import locate_alexnet_weights, stored_tensors

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'torch')")


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def test_a_pth_file_has_the_tensors_that_pytorch_saved(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.Linear(6, 7))
    base = torch.arange(12.0)
    parts = {"view": base[2:8].reshape(2, 3), "turned": base.reshape(3, 4).T}
    content = model.state_dict() | parts | {"parameter": torch.nn.Parameter(base)}
    stored = stored_tensors(saved(tmp_path / "w.pth", content))
    assert list(stored) == list(content)
    for name, tensor in content.items():
        assert stored[name].shape == tuple(tensor.shape)
        values = stored[name].read()
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, tensor.detach().numpy())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"w": torch.zeros(2, dtype=torch.float64)}, r"'w' .* torch.float32. Received: .*float64"),
        ({"w": torch.arange(3)}, r"'w' .* Received: torch.int64"),
        ({"w": [1.0]}, "a dict of tensors by name. Received: 'list' under 'w'"),
        ({3: torch.zeros(2)}, "under 3"),
        ([torch.zeros(2)], "a dict of tensors. Received: 'list'"),
        ({"w": torch.nn.Linear(2, 2)}, "is damaged or not a file of weights"),
    ],
)
def test_a_pth_file_of_anything_but_float32_tensors_is_refused(tmp_path, content, says):
    assert_refused(saved(tmp_path / "w.pth", content), says)


def test_values_that_are_not_finite_are_refused(tmp_path):
    stored = stored_tensors(saved(tmp_path / "w.pth", {"w": torch.tensor([1, torch.nan])}))
    with pytest.raises(ValueError, match=r"'w' of .* must be finite"):
        stored["w"].read()


@pytest.mark.parametrize(
    "call",
    [
        Call(os.mkdir, "trace"),
        Call(os.system, "touch trace"),
        Call(eval, "open('trace', 'w')"),
        Call(getattr, dict, "fromkeys"),
    ],
)
def test_a_pth_file_that_calls_a_function_is_refused_and_nothing_is_called(
    tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "w.pth", {"w": call})
    assert_refused(path, "w.pth is damaged or not a file of weights")
    assert not (tmp_path / "trace").exists()


def test_the_harmful_file_of_this_test_does_harm_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Call(os.mkdir, "trace")))
    assert (tmp_path / "trace").exists()


def rewritten(path, name, change, compression=zipfile.ZIP_STORED):
    """Replaces one member of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, change(content) if member.endswith(name) else content)
    return path


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, name):
    path = saved(tmp_path / "w.pth", {"w": torch.zeros(4)})
    rewritten(path, name, lambda content: content + b"\0" * 10**8, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    assert_refused(path, "its zip archive is compressed")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"PK" + content[:40],
        lambda content: content.replace(b"storage", b"storagf", 1),
    ],
)
def test_a_damaged_pth_file_is_refused_in_one_line(tmp_path, damage):
    path = saved(tmp_path / "w.pth", {"w": torch.zeros(4)})
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(path, "w.pth is damaged or not a file of weights: .")


def test_a_tensor_that_claims_more_bytes_than_the_file_has_is_refused(tmp_path):
    path = saved(tmp_path / "w.pth", {"w": torch.zeros(10_000)})
    path.write_bytes(path.read_bytes().replace(b"\x10\x27", b"\xff\xff"))  # 10,000 to 65,535
    assert_refused(path, "w.pth is damaged or not a file of weights: .")


def assert_refused(path, says):
    with pytest.raises(ValueError, match=says) as error:
        stored_tensors(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_without_pytorch_the_extra_is_named_and_safetensors_can_be_read(tmp_path, monkeypatch):
    import safetensors.numpy

    (tmp_path / "w.pth").touch()
    safetensors.numpy.save_file({"w": np.ones(2, "f4")}, tmp_path / "w.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for weights in (tmp_path / "w.pth", "imagenet"):
        with pytest.raises(ValueError, match=r"needs PyTorch: pip install 'kerasrestart\[torch\]'"):
            locate_alexnet_weights(weights)
    path = locate_alexnet_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(stored_tensors(path)["w"].read(), [1, 1])


def test_finding_a_file_imports_neither_tensorflow_nor_pytorch():
    code = (
        "import sys; from kerasrestart.experiments.models import weight_files\n"
        "print({'tensorflow', 'keras', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


CONTENT = b"some weights" * 1000


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server in place of PyTorch's; gives the folder it serves and the cache."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    served, cache = tmp_path / "served", tmp_path / "home" / "hub" / "checkpoints"
    served.mkdir()
    (served / "alexnet.pth").write_bytes(CONTENT)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(weight_files, "_SHA256", hashlib.sha256(CONTENT).hexdigest())
    handler = functools.partial(Handler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/alexnet.pth"
        monkeypatch.setattr(weight_files, "_URL", url)
        yield served, cache
        server.shutdown()


def test_imagenet_is_downloaded_once_into_the_cache_of_pytorch(published):
    served, cache = published
    path = locate_alexnet_weights("imagenet")
    assert path == cache / "alexnet.pth"
    assert path.read_bytes() == CONTENT
    (served / "alexnet.pth").unlink()
    assert locate_alexnet_weights("imagenet") == path


def test_a_download_that_differs_in_its_last_byte_is_refused_and_not_kept(published):
    served, cache = published
    (served / "alexnet.pth").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(OSError, match="invalid hash value"):
        locate_alexnet_weights("imagenet")
    assert not list(cache.iterdir())


def test_a_damaged_file_in_the_cache_is_refused(published):
    _, cache = published
    cache.mkdir(parents=True)
    (cache / "alexnet.pth").write_bytes(CONTENT[1:])
    with pytest.raises(ValueError, match=r"is damaged, .*: remove the file"):
        locate_alexnet_weights("imagenet")


def test_a_failed_download_says_where_to_put_the_file(published):
    served, cache = published
    (served / "alexnet.pth").unlink()
    with pytest.raises(
        OSError, match=r"cannot be downloaded \(HTTP Error 404.* put it at"
    ) as error:
        locate_alexnet_weights("imagenet")
    assert str(cache / "alexnet.pth") in str(error.value)
    assert "\n" not in str(error.value)
