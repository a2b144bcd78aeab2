"""Files of named tensors, read without running anything that stands in them."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from kerasrestart.experiments.weights.torch_zip import read_torch_zip

_TORCH = (".pth", ".pt")


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a file of weights.

    Args:
        path: A `.safetensors` file, or a `.pth` or `.pt` file with a dict of tensors, as
            `torch.save` writes it since PyTorch 1.6.

    Returns:
        Arrays by name, float32, all of them finite.

    Raises:
        ValueError: The file is of another kind, cut short or altered; or a tensor is not float32,
            or holds a number that is not finite. One line, which names the tensor where the
            damage is inside one.
        OSError: The file cannot be read.
    """
    path = pathlib.Path(path)
    if path.suffix in _TORCH:
        tensors = read_torch_zip(path)
    elif path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    else:
        raise ValueError(
            f"Weights must be a .safetensors or {' or '.join(_TORCH)} file. Received: {path}"
        )
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"Tensor '{name}' of {path} holds numbers that are not finite.")
    return tensors


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in kinds.items():
                if kind != "F32":
                    raise ValueError(f"Tensor '{name}' of {path} must be F32. Received: {kind}")
            return {name: file.get_tensor(name) for name in kinds}
    except safetensors.SafetensorError as error:
        where = _cut_tensor(path)
        what = f"is cut short inside tensor '{where}'" if where else f"is damaged: {error}"
        raise ValueError(f"{path} {what}.") from error


def _cut_tensor(path: pathlib.Path) -> str | None:
    """The first tensor that the file ends before the end of; None where that is not its fault."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        ends = {name: 8 + length + tensor["data_offsets"][1] for name, tensor in header.items()}
        cut = [name for name in sorted(ends, key=ends.__getitem__) if ends[name] > len(content)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    return cut[0] if cut else None
