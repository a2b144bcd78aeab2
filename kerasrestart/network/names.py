"""The key of each layer: its name where that is unique, else its path; and what holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import keras

from kerasrestart.network.keras_internals import direct_sublayers


def layer_keys(model: keras.Model, counts: Callable[[keras.Layer], bool]) -> dict[int, str]:
    """Names all layers of a model.

    Args:
        model: The model.
        counts: Tells for a layer whether it needs a name of its own.

    Returns:
        By id of a layer, its key. Of those that need one, no two are equal: layers of one name get
        their path, such as `"rgb/conv2d"`, and those of one path a number too, `"rgb/conv2d:2"`.
    """
    paths: dict[int, str] = {}
    found: list[keras.Layer] = []
    stack = [(layer, layer.name) for layer in reversed(direct_sublayers(model))]
    while stack:
        layer, path = stack.pop()
        if id(layer) in paths:
            continue
        paths[id(layer)] = path
        found.append(layer)
        inside = reversed(direct_sublayers(layer))
        stack += [(inner, f"{path}/{inner.name}") for inner in inside]
    of_name = Counter(layer.name for layer in found if counts(layer))
    keys: dict[int, str] = {}
    used: Counter[str] = Counter()
    for layer in found:
        key = layer.name if of_name[layer.name] < 2 else paths[id(layer)]
        if counts(layer):
            used[key] += 1
            if used[key] > 1:
                key = f"{key}:{used[key]}"
        keys[id(layer)] = key
    return keys


def holders(model: keras.Model) -> dict[int, int]:
    """By id of a layer that a model inside a model holds, the id of the innermost such model."""
    found: dict[int, int] = {}
    stack = [(layer, model) for layer in direct_sublayers(model)]
    while stack:
        layer, holder = stack.pop()
        if id(layer) not in found:
            found[id(layer)] = id(holder)
            inner = layer if isinstance(layer, keras.Model) else holder
            stack += [(one, inner) for one in direct_sublayers(layer)]
    return {layer: holder for layer, holder in found.items() if holder != id(model)}
