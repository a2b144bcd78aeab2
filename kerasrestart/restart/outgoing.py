"""The outgoing weights of filters: which numbers of which kernels read their channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from kerasrestart.network import kernels
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.sites import Site


def outgoing_masks(
    channels: ChannelMap, sites: Mapping[str, Site], chosen: Mapping[str, Sequence[int]]
) -> list[tuple[keras.Variable, np.ndarray]]:
    """Finds the outgoing weights of some filters.

    Args:
        channels: The paths of the model's channels.
        sites: The model's sites.
        chosen: By layer name, indices of filters.

    Returns:
        Kernels, each once, with a mask of the weights that read the filters' channels: bool, to be
        broadcast against the kernel.

    Raises:
        ValueError: A channel is shared with another layer's (as in a residual sum), or goes where
            it is not followed: its readers read more than this filter.
    """
    masks: dict[int, tuple[keras.Variable, np.ndarray]] = {}
    for name, filters in chosen.items():
        if not len(filters):
            continue
        path = channels.path(sites[name].layer, filters)
        if obstacle := path.obstacle():
            raise ValueError(
                f"The outgoing weights of '{name}' cannot be set to zero: {obstacle}. Leave the "
                "layer out, or use outgoing='keep'."
            )
        for reader in path.readers:
            kernel = kernels.reading_kernel(reader.layer)
            mask = kernels.reading_mask(reader.layer, np.array(reader.channels))
            _, before = masks.get(id(kernel), (kernel, np.zeros_like(mask)))
            masks[id(kernel)] = kernel, mask | before
    return list(masks.values())
