"""What a model takes, as placeholders in a graph that never runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.keras_internals import input_structure


def specs_of(x: Any, batch: bool = True) -> Any:
    """The shapes and dtypes of an example of data.

    Args:
        x: A structure of arrays, tensors, `tf.TensorSpec` or `keras.KerasTensor`, batch first.
        batch: Whether the batch size is left open. Defaults to True.

    Returns:
        The same structure of `tf.TensorSpec` (`tf.SparseTensorSpec` for sparse tensors). float64
        becomes Keras's `floatx`, as in `fit`.
    """

    def spec(leaf: Any) -> Any:
        if is_missing(leaf):
            return None
        if isinstance(leaf, tf.SparseTensor | tf.SparseTensorSpec):
            shape = leaf.shape.as_list()
            return tf.SparseTensorSpec([None, *shape[1:]] if batch else shape, leaf.dtype)
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            leaf = np.asarray(leaf)
        dtype = tf.as_dtype(getattr(leaf.dtype, "name", leaf.dtype))
        if dtype == tf.float64:
            dtype = tf.as_dtype(keras.config.floatx())
        shape = tf.TensorShape(leaf.shape)
        if batch and shape.rank:
            shape = tf.TensorShape([None, *shape[1:]])
        return tf.TensorSpec(shape, dtype)

    return keras.tree.map_structure(spec, x)


def is_missing(leaf: Any) -> bool:
    """Whether a leaf of data, or its spec, is an input that is not given."""
    return leaf is None or isinstance(leaf, tf.NoneTensorSpec | tf.OptionalSpec)


def has_input_layers(model: keras.Model) -> bool:
    """Whether a model knows its inputs from `Input` layers, their dtypes included."""
    return input_structure(model) is not None


def known_inputs(model: keras.Model) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a model's call as far as the model itself knows them.

    Returns:
        Positional and keyword arguments of specs: those of its `Input` layers, else of the shapes
        that it was built with; None where it was not built yet.
    """
    symbolic = input_structure(model)
    if symbolic is not None:
        return (specs_of(symbolic, batch=False),), {}
    config = model.get_build_config() if model.built else None
    if not config:
        return None
    if "input_shape" in config and config["input_shape"] is not None:
        return (_specs_of_shapes(config["input_shape"]),), {}
    shapes = config.get("shapes_dict") or {}
    named = {name.removesuffix("_shape"): _specs_of_shapes(s) for name, s in shapes.items()}
    return ((), named) if named else None


def _specs_of_shapes(shapes: Any) -> Any:
    if shapes is None:  # of an input that was not given
        return None
    if isinstance(shapes, Mapping):
        return {name: _specs_of_shapes(shape) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec([None, *shapes[1:]], keras.config.floatx())
    return type(shapes)(_specs_of_shapes(shape) for shape in shapes)


def placeholders(specs: Any) -> Any:
    """Tensors of the given specs in the current graph."""

    def make(spec: Any) -> Any:
        if spec is None:
            return None
        if isinstance(spec, tf.SparseTensorSpec):
            return tf.compat.v1.sparse_placeholder(spec.dtype, spec.shape.as_list())
        return tf.compat.v1.placeholder(spec.dtype, spec.shape)

    return keras.tree.map_structure(make, specs)


def tensors_in(values: Any) -> list[tf.Tensor]:
    """All symbolic tensors of a structure, those of sparse tensors one by one."""
    leaves = []
    for value in keras.tree.flatten(values):
        if isinstance(value, tf.SparseTensor):
            leaves.append(value.values)
        elif tf.is_tensor(value) and hasattr(value, "op"):
            leaves.append(value)
    return leaves
