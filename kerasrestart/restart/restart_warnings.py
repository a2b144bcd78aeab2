"""What a restart leaves of the old filters, in one line each."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayers
from kerasrestart.network.paths import Path
from kerasrestart.network.text import listed
from kerasrestart.restart.norms import norm_channels, other_variables


def restart_warnings(found: FilterLayers, paths: Mapping[str, Path], *, norms: bool) -> list[str]:
    """Says what a restart leaves of the old filters.

    Args:
        found: The model's filter layers.
        paths: By key of the layers that are restarted, the paths of their channels.
        norms: Whether channels of norms are reset.

    Returns:
        At most two lines: frozen norms, and variables with one number per filter that a restart
        does not know (such as a gain in a subclass).
    """
    frozen: dict[str, None] = {}
    kept: dict[str, None] = {}
    for key, path in paths.items():
        filter_layer = found.layers[key]
        kept |= dict.fromkeys(v.path for v in _unknown_variables(filter_layer.layer))
        every_filter = np.arange(filter_layer.filters)
        for norm, _ in norm_channels(filter_layer, every_filter, path) if norms else ():
            if norm.trainable:
                kept |= dict.fromkeys(v.path for v in other_variables(norm))
            else:
                frozen[norm.name] = None
    lines = []
    if frozen:
        lines.append(f"Frozen norms keep the values of restarted filters: {listed([*frozen])}.")
    if kept:
        lines.append(
            f"A restart does not reset these variables with a number per filter: {listed([*kept])}."
        )
    return lines


def _unknown_variables(layer: layers.Layer) -> list[keras.Variable]:
    """Returns a layer's variables with an axis of filters, other than kernel and bias."""
    known = {id(kernels.incoming_kernel(layer)), id(kernels.reading_kernel(layer)), id(layer.bias)}
    count = kernels.filters_of(layer)
    return [v for v in layer.weights if id(v) not in known and count in v.shape]
