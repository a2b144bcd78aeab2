"""Reads tensors out of files of `torch.save`, without PyTorch and without running their pickle.

Such a file is a zip: `<root>/data.pkl` is a pickle that says which tensors there are, and
`<root>/data/<key>` holds the bytes of a storage. A pickle can call any function of any module that
it names. This reader knows three kinds of names and refuses all others: the container, the types of
storages, and the functions that make a tensor of a storage, in the place of which it puts its own.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import os
import pathlib
import pickle
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

_STORAGES = {"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16"}
_MOST_PICKLE = 2**20
"""Bytes of the pickle at most: a network's names and shapes take some ten thousand."""


@dataclasses.dataclass
class _Storage:
    dtype: str
    key: str
    count: int


@dataclasses.dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_zip(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a dict of tensors, such as a model's `state_dict()`, that `torch.save` wrote.

    Args:
        path: The file, in the zip format that PyTorch has written since version 1.6.

    Returns:
        Arrays by name, float32.

    Raises:
        ValueError: The file is of another format, cut short or altered; it names anything but
            float tensors in a dict; or a tensor is not float32 or not contiguous. One line.
        OSError: The file cannot be read.
    """
    with pathlib.Path(path).open("rb") as file:
        try:
            return _read(file)
        except Exception as error:  # an altered zip or pickle can end in nearly any error
            raise ValueError(
                f"{path} cannot be read as tensors of torch.save: {_in_one_line(error)}"
            ) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        root = pickled.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist():
            order = archive.read(root + "byteorder").decode()
            if order != "little":
                raise ValueError(f"its bytes must be in little order, not in {order!r}")
        if archive.getinfo(pickled).file_size > _MOST_PICKLE:
            raise ValueError("its list of tensors is too long to be one")
        content = _Reader(io.BytesIO(archive.read(pickled))).load()
        if not isinstance(content, dict):
            raise ValueError(f"it must hold a dict of tensors, but holds {_kind(content)}")
        return {name: _array(name, tensor, archive, root) for name, tensor in content.items()}


class _Reader(pickle.Unpickler):
    """Unpickles names, numbers and containers, and nothing that could act."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # Made anew each time: a pickle can set attributes of what it was given.
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, which no file of weights needs, and was not followed"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise pickle.UnpicklingError(f"it refers to an unknown object {pid!r}")
        if not isinstance(key, str) or type(count) is not int:
            raise pickle.UnpicklingError(f"it refers to a storage {pid!r}")
        return _Storage(dtype, key, count)


def _array(name: Any, tensor: Any, archive: zipfile.ZipFile, root: str) -> np.ndarray:
    """Reads the numbers of one tensor, after checking all that the pickle says of it."""
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
        raise ValueError(f"{name!r} must be the name of a tensor, but is that of {_kind(tensor)}")
    storage, shape = tensor.storage, tensor.shape
    numbers = [tensor.offset, *shape, *tensor.strides]
    if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"tensor '{name}' is described wrongly")
    if storage.dtype != "float32":
        raise ValueError(f"tensor '{name}' must be float32, but is {storage.dtype}")
    count = math.prod(shape)
    if tensor.strides != _contiguous(shape):
        raise ValueError(f"tensor '{name}' must lie contiguously, but has strides {tensor.strides}")
    try:
        member = archive.getinfo(f"{root}data/{storage.key}")
        if member.file_size != 4 * storage.count or tensor.offset + count > storage.count:
            raise ValueError(f"tensor '{name}' has {member.file_size} bytes, too few or too many")
        content = archive.read(member)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"tensor '{name}' is damaged: {_in_one_line(error)}") from error
    return np.frombuffer(content, "<f4", count, 4 * tensor.offset).reshape(shape)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _kind(value: Any) -> str:
    return type(value).__name__


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or _kind(error)
