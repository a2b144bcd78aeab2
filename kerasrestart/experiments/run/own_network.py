"""Networks of your own: built by the function that `--model` names, and checked."""

from __future__ import annotations

import keras
import numpy as np

from kerasrestart.experiments import references
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import SETTINGS
from kerasrestart.experiments.sources import errors_name_reference
from kerasrestart.network.keras_internals import layer_names_from_start
from kerasrestart.network.raw_operations import RawOperation
from kerasrestart.network.traced_graph import traced_graph


def build_own_network(text: str, input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Calls the function that `--model` names.

    Args:
        text: Its reference.
        input_shape: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        A built model from images to `[batch, classes]`.

    Raises:
        SettingError: The function fails, or its model is none for these images and classes.
    """

    def refuse(reason: str) -> SettingError:
        return SettingError(
            f"--model must be {SETTINGS['model'].reference}, from images to [batch, classes], "
            f"here for {tuple(input_shape)}, {classes}. Received: {text!r}, {reason}"
        )

    # A second run in this process gets the same names of layers as the first.
    with errors_name_reference("model", text), layer_names_from_start():
        model = references.call(text, input_shape, classes)
    if not isinstance(model, keras.Model):
        raise refuse(f"which returns {type(model).__name__!r}")
    try:
        # A model that is a subclass has no weights until it is called.
        output = model(np.zeros((1, *input_shape), "float32"))
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise refuse(f"whose model cannot be called: {line}") from error
    shape = getattr(output, "shape", None)
    if shape is None or tuple(shape) != (1, classes):
        received = type(output).__name__ if shape is None else f"shape {tuple(shape)}"
        raise refuse(f"whose model returns {received} for one image")
    return model


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a model returns probabilities; the others return logits."""
    graph = traced_graph(model)
    ends = [call.operation for call in graph.calls if graph.outputs.intersection(call.outputs)]
    return any(_is_softmax(operation) for operation in ends)


def _is_softmax(operation: keras.Layer | RawOperation) -> bool:
    if isinstance(operation, RawOperation):
        return operation.type == "Softmax"
    is_layer = isinstance(operation, keras.layers.Softmax)
    return is_layer or getattr(operation, "activation", None) is keras.activations.softmax
