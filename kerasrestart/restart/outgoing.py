"""Finds the outgoing weights of filters: the parts of other kernels that read their channels."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import FilterLayer
from kerasrestart.network.paths import Path


def outgoing_paths(
    channels: ChannelMap, filter_layers: Mapping[str, FilterLayer], chosen: Mapping[str, np.ndarray]
) -> dict[str, Path]:
    """Finds the layers that read some filters, and checks that their weights can be set to zero.

    Channels are followed through a depthwise filter, unless all of its weights are zero already and
    it is not chosen itself: with zeros on both sides it would never learn again.

    Args:
        channels: The model's channel map.
        filter_layers: The model's filter layers, by key.
        chosen: By key, indices of filters.

    Returns:
        By key, the path to the readers, see `ChannelMap.outgoing`.

    Raises:
        ValueError: A channel is shared with another layer's (as in a residual sum), or cannot be
            followed.
    """
    keys = {id(filter_layer.layer): key for key, filter_layer in filter_layers.items()}

    def passes(layer: layers.Layer, filters: np.ndarray) -> np.ndarray:
        weights = np.asarray(kernels.by_filter(layer, kernels.incoming_kernel(layer).value))
        lives = np.asarray(weights.any(axis=tuple(range(weights.ndim - 1))))
        lives[np.asarray(chosen.get(keys.get(id(layer), ""), ()), int)] = True
        return filters[lives[filters]]

    paths = {}
    for name, filters in chosen.items():
        if len(filters):
            layer = filter_layers[name].layer
            if obstacle := channels.outgoing(layer, filters).obstacle():
                raise ValueError(
                    f"The outgoing weights of '{name}' cannot be set to zero: {obstacle}. Leave "
                    "out the layer, or use outgoing='keep'."
                )
            paths[name] = channels.outgoing(layer, filters, passes)
    return paths


def outgoing_masks(paths: Mapping[str, Path]) -> list[tuple[keras.Variable, np.ndarray]]:
    """Returns the outgoing weights at the end of some paths.

    Args:
        paths: From `outgoing_paths`.

    Returns:
        Kernels, each once, with a bool mask of the weights that read the filters' channels,
        broadcastable to the kernel.
    """
    masks: dict[int, tuple[keras.Variable, np.ndarray]] = {}
    for path in paths.values():
        for reader in path.readers:
            kernel = kernels.reading_kernel(reader.layer)
            mask = kernels.reading_mask(reader.layer, np.array(reader.channels))
            _, before = masks.get(id(kernel), (kernel, np.zeros_like(mask)))
            masks[id(kernel)] = kernel, mask | before
    return list(masks.values())
