"""Files of trained weights: where they are and which tensors they hold. No TensorFlow here."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import pathlib
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from kerasrestart.experiments.paths import user_path
from kerasrestart.network.text import one_line

IMAGENET = "imagenet"
_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
_TORCH = (".pth", ".pt")
_TIMEOUT = 10.0  # seconds for the server, and for each block


class StoredTensor(NamedTuple):
    """A float32 tensor in a file.

    Attributes:
        shape: Its shape, from the file's header.
        read: Reads its values, float32, all finite; raises ValueError where one is not.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def locate_alexnet_weights(weights: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a file of AlexNet weights that this installation can read.

    Args:
        weights: The path; or `"imagenet"`, the file that torchvision publishes. That one is
            downloaded into PyTorch's own cache (`$TORCH_HOME/hub/checkpoints`, by default
            `~/.cache/torch/hub/checkpoints`) where it is not there, and checked by its SHA-256.

    Raises:
        ValueError: The published file is damaged, or PyTorch is needed and not installed.
        OSError: There is no such file, or it cannot be downloaded.
    """
    if weights == IMAGENET:
        _require_torch("weights='imagenet'")
        return _published()
    path = user_path(weights, "weights")
    if not path.is_file():
        raise FileNotFoundError(
            f"weights must be {IMAGENET!r} or the path of a file. Received: {os.fspath(weights)!r}"
        )
    if path.suffix in _TORCH:
        _require_torch(f"A {path.suffix} file")
    return path


def stored_tensors(path: str | os.PathLike) -> dict[str, StoredTensor]:
    """Lists the tensors of a file; their values are read when `StoredTensor.read` is called.

    Args:
        path: A `.safetensors` file, or a `.pth` or `.pt` file that holds a dict of tensors as
            `torch.save` writes it. PyTorch reads the latter with `weights_only=True`, so that
            nothing in it is run.

    Returns:
        The tensors by name.

    Raises:
        ValueError: The file is of another kind or damaged, a tensor is not float32, or PyTorch is
            needed and not installed.
        OSError: The file cannot be read.
    """
    path = pathlib.Path(path)
    if path.suffix in _TORCH:
        _require_torch(f"A {path.suffix} file")
        return _from_torch(path)
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    raise ValueError(
        f"Weights must be a .safetensors, {' or '.join(_TORCH)} file. Received: {str(path)!r}"
    )


def _from_safetensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    import safetensors

    with _damage_named(path):
        # The library checks the header against the size of the file.
        file = safetensors.safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    for name, part in slices.items():
        _check_float32(name, part.get_dtype(), "F32", path)
    return {
        name: _stored(name, tuple(part.get_shape()), functools.partial(file.get_tensor, name), path)
        for name, part in slices.items()
    }


def _from_torch(path: pathlib.Path) -> dict[str, StoredTensor]:
    import torch

    with _damage_named(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type for member in archive.infolist()):
                # A small file could fill the memory; torch.save compresses nothing.
                raise ValueError("its zip archive is compressed")
        # With mmap a tensor that claims more bytes than the file has is refused, not allocated.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a dict of tensors. Received: {type(content).__name__!r}"
        )
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"{path} must hold a dict of tensors by name. Received: {type(tensor).__name__!r} "
                f"under {name!r}"
            )
        _check_float32(name, str(tensor.dtype), "torch.float32", path)
    return {
        name: _stored(name, tuple(tensor.shape), tensor.detach().numpy, path)
        for name, tensor in content.items()
    }


def _stored(
    name: str, shape: tuple[int, ...], read: Callable[[], Any], path: pathlib.Path
) -> StoredTensor:
    def read_finite() -> np.ndarray:
        with _damage_named(path):
            values = np.array(read())
        if not np.isfinite(values).all():
            raise ValueError(f"Tensor '{name}' of {path} must be finite; it holds NaN or infinity.")
        return values

    return StoredTensor(shape, read_finite)


def _check_float32(name: str, dtype: str, expected: str, path: pathlib.Path) -> None:
    if dtype != expected:
        raise ValueError(f"Tensor '{name}' of {path} must be {expected}. Received: {dtype}")


@contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    """Makes any error of a reader one line that names the file."""
    try:
        yield
    except OSError as error:  # of safetensors it has no file name
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the readers raise errors of many classes for damaged files
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} is damaged or not a file of weights: {lines[0]}") from error


def _require_torch(what: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise ValueError(
            f"{what} needs PyTorch: pip install 'kerasrestart[torch]', or use a .safetensors file."
        )


def _published() -> pathlib.Path:
    import torch

    # torch.hub would make a folder named `~` where the home folder is not known.
    cache = user_path(torch.hub.get_dir(), "the cache of PyTorch (TORCH_HOME)")
    path = cache / "checkpoints" / _URL.rpartition("/")[2]
    if not path.exists():
        print(f"Downloading {_URL} to {path}", flush=True)
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT)  # torch.hub itself waits without limit
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_URL, str(path), _SHA256, progress=False)
        except Exception as error:  # from the network to a wrong hash, which is a RuntimeError
            reason = one_line(error)
            raise OSError(
                f"{_URL} cannot be downloaded ({reason}): download it where there is a network and "
                f"put it at {path}, or pass the path of a file of weights."
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        raise ValueError(
            f"{path} is damaged, its SHA-256 must be {_SHA256}: remove the file to download it "
            f"again. Received: {digest}"
        )
    return path
