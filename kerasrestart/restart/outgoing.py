"""The outgoing weights of filters: which numbers of which kernels read their channels."""

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
    """Finds who reads some filters, whose weights could be set to zero.

    A depthwise filter of weights that are all zero already stands between the filter that it reads
    and all others. It is not followed, unless it is chosen itself: it would have zeros on both
    sides, and never learn again.

    Args:
        channels: The paths of the model's channels.
        filter_layers: The model's filter_layers.
        chosen: By layer name, indices of filters.

    Returns:
        By layer name, the path to the readers, see `ChannelMap.outgoing`.

    Raises:
        ValueError: A channel is shared with another layer's (as in a residual sum), or goes where
            it is not followed: its readers read more than this filter.
    """

    def passes(layer: layers.Layer, filters: np.ndarray) -> np.ndarray:
        weights = np.asarray(kernels.by_filter(layer, kernels.incoming_kernel(layer).value))
        lives = np.asarray(weights.any(axis=tuple(range(weights.ndim - 1))))
        lives[np.asarray(chosen.get(layer.name, ()), int)] = True
        return filters[lives[filters]]

    paths = {}
    for name, filters in chosen.items():
        if len(filters):
            layer = filter_layers[name].layer
            if obstacle := channels.outgoing(layer, filters).obstacle():
                raise ValueError(
                    f"The outgoing weights of '{name}' cannot be set to zero: {obstacle}. Leave "
                    "the layer out, or use outgoing='keep'."
                )
            paths[name] = channels.outgoing(layer, filters, passes)
    return paths


def outgoing_masks(paths: Mapping[str, Path]) -> list[tuple[keras.Variable, np.ndarray]]:
    """The outgoing weights at the end of some paths.

    Returns:
        Kernels, each once, with a mask of the weights that read the filters' channels: bool, to be
        broadcast against the kernel.
    """
    masks: dict[int, tuple[keras.Variable, np.ndarray]] = {}
    for path in paths.values():
        for reader in path.readers:
            kernel = kernels.reading_kernel(reader.layer)
            mask = kernels.reading_mask(reader.layer, np.array(reader.channels))
            _, before = masks.get(id(kernel), (kernel, np.zeros_like(mask)))
            masks[id(kernel)] = kernel, mask | before
    return list(masks.values())
