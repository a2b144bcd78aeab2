"""Files of torch.save: those that PyTorch writes, and those that mean harm."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from kerasrestart.experiments.weights.torch_zip import read_torch_zip

NUMBERS = np.arange(6, dtype="<f4").reshape(2, 3)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Global:
    """Pickles as a name of a module."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Writer(pickle._Pickler):
    """Writes what torch.save writes, without PyTorch."""

    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None

    def save(self, value, *rest, **named):
        if isinstance(value, Global):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Tensor):
            self.save(Global("torch._utils", "_rebuild_tensor_v2"))
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, *rest, **named)


class Storage:
    def __init__(self, key="0", count=6, kind="FloatStorage"):
        self.pid = ("storage", Global("torch", kind), key, "cpu", count)


class Tensor:
    """Pickles as a call of the function that makes tensors."""

    def __init__(self, storage=None, offset=0, shape=(2, 3), strides=(3, 1)):
        hooks = collections.OrderedDict()
        self.arguments = (storage or Storage(), offset, shape, strides, False, hooks)


def written(path, content, storages=None, **members):
    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", members.get("pickled", buffer.getvalue()))
        archive.writestr("archive/byteorder", members.get("byteorder", "little"))
        for key, of_key in (storages or {"0": NUMBERS.tobytes()}).items():
            archive.writestr(f"archive/data/{key}", of_key)
    return path


def test_reads_what_pytorch_writes(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'bench')")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.Linear(6, 7))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    tensors = read_torch_zip(tmp_path / "model.pth")
    assert list(tensors) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())
    base = torch.arange(12.0)
    torch.save({"part": base[2:8].reshape(2, 3), "all": base}, tmp_path / "views.pth")
    tensors = read_torch_zip(tmp_path / "views.pth")
    np.testing.assert_array_equal(tensors["part"], NUMBERS + 2)
    assert tensors["all"].shape == (12,)
    parameters = {"own": torch.nn.Parameter(base)}
    torch.save(parameters, tmp_path / "parameters.pth")
    np.testing.assert_array_equal(read_torch_zip(tmp_path / "parameters.pth")["own"], base)
    torch.save({"turned": base.reshape(3, 4).T}, tmp_path / "turned.pth")
    with pytest.raises(ValueError, match="'turned' must lie contiguously"):
        read_torch_zip(tmp_path / "turned.pth")
    torch.save({"whole": torch.arange(3)}, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="LongStorage"):
        read_torch_zip(tmp_path / "whole.pth")
    torch.save({"a": base}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="not a zip file"):
        read_torch_zip(tmp_path / "old.pth")


def test_reads_what_the_tests_write(tmp_path):
    content = collections.OrderedDict(
        weight=Tensor(), bias=Tensor(offset=3, shape=(3,), strides=(1,))
    )
    tensors = read_torch_zip(written(tmp_path / "w.pth", content))
    np.testing.assert_array_equal(tensors["weight"], NUMBERS)
    np.testing.assert_array_equal(tensors["bias"], [3, 4, 5])


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {path}",)),
        (eval, ("open('{path}', 'w')",)),
        (os.mkdir, ("{path}",)),
        (getattr, (collections.OrderedDict, "fromkeys")),
        (collections.Counter, ()),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_something_is_refused_and_not_followed(
    tmp_path, function, arguments, protocol
):
    trace = tmp_path / "trace"
    arguments = [a.format(path=trace) if isinstance(a, str) else a for a in arguments]
    pickled = pickle.dumps({"weight": Call(function, *arguments)}, protocol)
    path = written(tmp_path / "w.pth", {}, pickled=pickled)
    with pytest.raises(ValueError, match="was not followed"):
        read_torch_zip(path)
    assert not trace.exists()


def test_the_harmful_pickles_of_this_test_do_harm_elsewhere(tmp_path):
    pickle.loads(pickle.dumps(Call(os.mkdir, str(tmp_path / "trace"))))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"w": Tensor(Storage(kind="DoubleStorage"))}, "'w' must be float32, but is float64"),
        ({"w": Tensor(Storage(kind="UntypedStorage"))}, "torch.UntypedStorage"),
        ({"w": Tensor(Storage(key="7"))}, "tensor 'w' is damaged"),
        ({"w": Tensor(Storage(key="../../secret"))}, "tensor 'w' is damaged"),
        ({"w": Tensor(Storage(count=7))}, "tensor 'w' has 24 bytes"),
        ({"w": Tensor(offset=1)}, "tensor 'w' has 24 bytes"),
        ({"w": Tensor(offset=-1)}, "'w' is described wrongly"),
        ({"w": Tensor(shape=(10**12,), strides=(0,))}, "'w' must lie contiguously"),
        ({"w": Tensor(shape=(2**62, 8), strides=(8, 1))}, "tensor 'w' has 24 bytes"),
        ({"w": Tensor(shape=(-2, 3))}, "'w' is described wrongly"),
        ({"w": Tensor(shape=("2", 3))}, "'w' is described wrongly"),
        ({"w": Tensor(storage="0")}, "'w' is described wrongly"),
        ({"w": [1.0]}, "'w' must be the name of a tensor, but is that of list"),
        ({3: Tensor()}, "3 must be the name of a tensor"),
        ([Tensor()], "a dict of tensors, but holds list"),
        (Tensor(), "a dict of tensors, but holds _Tensor"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(tmp_path, content, says):
    path = written(tmp_path / "w.pth", content)
    with pytest.raises(ValueError, match=says) as error:
        read_torch_zip(path)
    assert "\n" not in str(error.value)


def test_any_damage_is_one_error(tmp_path):
    whole = written(tmp_path / "w.pth", {"w": Tensor(), "v": Tensor(Storage("0"))}).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, max(len(content), 1), 3):
            content[place : place + 1] = bytes([rng.integers(256)])
        (tmp_path / "w.pth").write_bytes(content)
        try:
            tensors = read_torch_zip(tmp_path / "w.pth")
        except ValueError:
            refused += 1
        else:  # damage in what no one reads, such as the time of a member
            for tensor in tensors.values():
                np.testing.assert_array_equal(tensor, NUMBERS)
    assert refused > 150


def test_a_storage_with_a_wrong_checksum_is_named(tmp_path):
    path = written(tmp_path / "w.pth", {"w": Tensor()})
    content = path.read_bytes()
    path.write_bytes(content.replace(NUMBERS.tobytes(), (NUMBERS + 1).tobytes()))
    with pytest.raises(ValueError, match="tensor 'w' is damaged: Bad CRC"):
        read_torch_zip(path)


def test_bytes_in_big_order_are_refused(tmp_path):
    with pytest.raises(ValueError, match="little order"):
        read_torch_zip(written(tmp_path / "w.pth", {"w": Tensor()}, byteorder="big"))
