"""Loads AlexNet's weights, stored under torchvision's names."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasrestart.experiments.models.weight_files import (
    StoredTensor,
    locate_alexnet_weights,
    stored_tensors,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

POOLED_SIDE = 6
"""Height and width of the map that torchvision's dense layers read."""
_CONVOLUTIONS = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
}
_DENSE = {"dense1": "classifier.1", "dense2": "classifier.4", "logits": "classifier.6"}


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """What was loaded from a file of weights.

    Attributes:
        path: The file.
        sha256: Its SHA-256, in hex.
        layers: Names of the layers whose weights come from it.
        kept: For each layer that the file has weights for and that keeps its initial ones: why.
    """

    path: pathlib.Path
    sha256: str
    layers: tuple[str, ...]
    kept: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The entry of a run's record, made of JSON types only."""
        return {"sha256": self.sha256, "layers": list(self.layers), "kept": dict(self.kept)}

    def summary(self) -> str:
        """One line: which layers were loaded, and which keep their initial weights and why."""
        kept = "".join(f"; {name} keeps initial weights: {why}" for name, why in self.kept.items())
        return f"Weights of {', '.join(self.layers)} from {self.path}{kept}"


def load_alexnet_weights(model: keras.Model, weights: str | os.PathLike) -> LoadedWeights:
    """Loads weights from a file into a model that `alexnet` built: all that fit, or none.

    A file holds the five convolutions (`features.0.weight`, `features.0.bias` and so on), whose
    shapes must be the model's, or these and the three dense layers (`classifier.1.weight` and so
    on). `dense1` and `dense2` are loaded where they have as many units, `logits` where there are as
    many classes too; otherwise they keep their initial weights. Names and shapes are checked before
    any values are read.

    Args:
        model: The model.
        weights: Path of a `.safetensors`, `.pth` or `.pt` file; or `"imagenet"`, torchvision's
            published weights. All but `.safetensors` need PyTorch: `pip install
            'kerasrestart[torch]'`.

    Returns:
        What was loaded.

    Raises:
        ValueError: The file is damaged, lacks a tensor, or has one too many, of another shape or of
            another type than float32; or PyTorch is needed and not installed. The line names the
            tensor, and the model is unchanged.
        OSError: The file cannot be read or downloaded.
    """
    path = locate_alexnet_weights(weights)
    tensors = stored_tensors(path)
    _check_names(tensors, path)
    fitting = list(_CONVOLUTIONS)
    kept: dict[str, str] = {}
    for layer, name in _CONVOLUTIONS.items():
        kernel, bias = model.get_layer(layer).weights
        height, width, channels, filters = kernel.shape
        _check_shape(tensors, f"{name}.weight", (filters, channels, height, width), path)
        _check_shape(tensors, f"{name}.bias", tuple(bias.shape), path)
    if _DENSE["dense1"] + ".weight" in tensors:
        kept = _check_dense(model, tensors, path)
        fitting += [layer for layer in _DENSE if layer not in kept]
    values = {layer: _read(model, layer, tensors) for layer in fitting}
    for layer, of_layer in values.items():
        model.get_layer(layer).set_weights(of_layer)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedWeights(path, digest, tuple(values), kept)


def _check_names(tensors: Mapping[str, StoredTensor], path: pathlib.Path) -> None:
    convolutions, dense = (
        {f"{name}.{part}": None for name in of_torch.values() for part in ("weight", "bias")}
        for of_torch in (_CONVOLUTIONS, _DENSE)
    )
    for name in tensors:
        if name not in convolutions and name not in dense:
            raise ValueError(
                f"{path} must have only tensors of AlexNet: {', '.join(convolutions)}, and either "
                f"none or all of {', '.join(dense)}. Received: '{name}'"
            )
    wanted = convolutions | (dense if any(name in tensors for name in dense) else {})
    for name in wanted:
        if name not in tensors:
            raise ValueError(f"{path} has no tensor '{name}'.")


def _check_shape(
    tensors: Mapping[str, StoredTensor], name: str, expected: tuple[int, ...], path: pathlib.Path
) -> None:
    if tensors[name].shape != expected:
        raise ValueError(
            f"Tensor '{name}' of {path} must have the shape {expected}. "
            f"Received: {tensors[name].shape}"
        )


def _check_dense(
    model: keras.Model, tensors: Mapping[str, StoredTensor], path: pathlib.Path
) -> dict[str, str]:
    """Checks that the file's dense layers are an AlexNet's; returns why some do not fit."""
    inputs = model.get_layer("conv5").filters * POOLED_SIDE**2
    kept: dict[str, str] = {}
    for layer, name in _DENSE.items():
        size = next(iter(tensors[f"{name}.bias"].shape), 0)
        _check_shape(tensors, f"{name}.bias", (size,), path)
        _check_shape(tensors, f"{name}.weight", (size, inputs), path)
        inputs = size
        units = model.get_layer(layer).units
        if units != size:
            kept[layer] = f"{size} units in the file, {units} here"
        elif kept:
            kept[layer] = f"{list(kept)[-1]} before it does"
    return kept


def _read(
    model: keras.Model, layer: str, tensors: Mapping[str, StoredTensor]
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the bias of a layer, in Keras's order of axes."""
    name = (_CONVOLUTIONS | _DENSE)[layer]
    weight, bias = tensors[f"{name}.weight"].read(), tensors[f"{name}.bias"].read()
    if layer in _CONVOLUTIONS:
        return weight.transpose(2, 3, 1, 0), bias
    if layer == "dense1":
        return _for_map(weight, model.get_layer("flatten").input.shape[1:]), bias
    return weight.T, bias


def _for_map(weight: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Converts weights for PyTorch's 6x6 map into weights for a smaller one, channels last.

    Pooling a map of fewer positions to 6x6 takes averages of its values, and a dense layer after it
    sums over these: together they are one dense layer on the map itself.

    Args:
        weight: float32 `[units, channels * 6 * 6]`.
        shape: Height, width and channels of the map.

    Returns:
        float32 `[height * width * channels, units]`.
    """
    height, width, channels = shape
    weight = weight.reshape(-1, channels, POOLED_SIDE, POOLED_SIDE)
    if height < POOLED_SIDE:
        weight = np.einsum("ucij,ih->uchj", weight, _pooling(height))
    if width < POOLED_SIDE:
        weight = np.einsum("ucij,jw->uciw", weight, _pooling(width))
    return weight.transpose(2, 3, 1, 0).reshape(height * width * channels, -1)


def _pooling(side: int) -> np.ndarray:
    """Adaptive average pooling of `side` values as a matrix: float32 `[6, side]`."""
    matrix = np.zeros((POOLED_SIDE, side), np.float32)
    for place in range(POOLED_SIDE):
        start, stop = place * side // POOLED_SIDE, -(-(place + 1) * side // POOLED_SIDE)
        matrix[place, start:stop] = 1 / (stop - start)
    return matrix
