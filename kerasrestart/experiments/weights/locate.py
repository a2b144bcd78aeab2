"""Finds the file of weights that a name or a path means."""

from __future__ import annotations

import os
import pathlib

from kerasrestart.experiments.weights.download import fetch_weights

IMAGENET = "imagenet"
_URL, _SHA256 = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79"


def locate_alexnet_weights(weights: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a file of weights for AlexNet.

    Args:
        weights: Its path; or `"imagenet"`: the file that torchvision publishes, downloaded into the
            cache of Keras where it is not there.

    Raises:
        ValueError: The published file that is there, or that came, is damaged.
        OSError: There is no such file, or it cannot be downloaded.
    """
    if weights == IMAGENET:
        return fetch_weights(_URL, _SHA256)
    path = pathlib.Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights must be {IMAGENET!r} or the path of a file. Received: {weights}"
        )
    return path
