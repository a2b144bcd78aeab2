"""Where the channels of filters go: which layers read them, and what else is added to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from kerasrestart.network.kernels import reading_kernel, reading_mask
from kerasrestart.network.text import listed


@dataclasses.dataclass(frozen=True)
class Reading:
    """A layer, and the channels of its input on which it reads something.

    Attributes:
        layer: The layer.
        channels: Indices of channels of its input.
        name: The key of the layer.
    """

    layer: layers.Layer
    channels: tuple[int, ...]
    name: str


@dataclasses.dataclass(frozen=True)
class Path:
    """Where the channels of some filters of one layer go.

    Attributes:
        readers: The layers that read them by a kernel, and which channels of their inputs.
        norms: The batch norms that they pass, and which of their channels.
        shared_with: What is added to them, or multiplied with them: keys of layers, "an input", or
            what operations that are not followed give.
        escapes: Where they go that is not followed: layers that mix channels in other ways, and
            "an output" of the model.
        shared_weights: What else reads the filters' own weights, or those of the readers.
    """

    readers: tuple[Reading, ...]
    norms: tuple[Reading, ...]
    shared_with: tuple[str, ...]
    escapes: tuple[str, ...]
    shared_weights: tuple[str, ...]

    def joined(self, other: Path) -> Path:
        """The union of this path and another one."""
        return Path(
            readers=united(self.readers + other.readers),
            norms=united(self.norms + other.norms),
            shared_with=tuple(sorted({*self.shared_with, *other.shared_with})),
            escapes=tuple(sorted({*self.escapes, *other.escapes})),
            shared_weights=tuple(sorted({*self.shared_weights, *other.shared_weights})),
        )

    def obstacle(self) -> str | None:
        """Why the readers' weights cannot be set to zero; None if they can."""
        if self.escapes:
            return f"its channels go into {listed(self.escapes)}"
        if self.shared_with:
            return f"its channels are shared with {listed(self.shared_with)}"
        if self.shared_weights:
            return listed(self.shared_weights)
        if fixed := [r.name for r in self.readers if not _learns(r.layer)]:
            return f"its channels are read by {listed(fixed)}, of fixed weights"
        if moved := [r.name for r in self.readers if not _keeps_zeros(r.layer, r.channels)]:
            return f"its channels are read by {listed(moved)}, whose kernel_constraint moves zeros"
        return None if self.readers else "nothing reads its channels"


def united(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Readings with each layer once."""
    found: dict[int, tuple[Reading, set[int]]] = {}
    for reading in readings:
        found.setdefault(id(reading.layer), (reading, set()))[1].update(reading.channels)
    return tuple(
        dataclasses.replace(reading, channels=tuple(sorted(places)))
        for reading, places in found.values()
    )


# They scale filters, or cut numbers off at zero.
_KEEP_ZEROS = (
    keras.constraints.MaxNorm,
    keras.constraints.MinMaxNorm,
    keras.constraints.NonNeg,
    keras.constraints.UnitNorm,
)


def _keeps_zeros(layer: layers.Layer, channels: Sequence[int]) -> bool:
    """Whether weights by which a layer reads stay zero under its constraint, tried on others."""
    kernel = reading_kernel(layer)
    constraint = kernel.constraint
    if constraint is None or type(constraint) in _KEEP_ZEROS:
        return True
    mask = np.broadcast_to(reading_mask(layer, np.array(channels[:1], int)), kernel.shape)
    made_up = np.where(mask, 0, np.random.default_rng(0).normal(size=kernel.shape))
    moved = constraint(keras.ops.convert_to_tensor(made_up, kernel.dtype))
    return not np.asarray(keras.ops.convert_to_numpy(moved))[mask].any()


def _learns(layer: layers.Layer) -> bool:
    """Whether the weights by which a layer reads can grow from zero."""
    lora = getattr(layer, "lora_enabled", False)
    kernel = reading_kernel(layer)  # a subclass may compute it from others
    is_trained = isinstance(kernel, keras.Variable) and kernel.trainable
    return is_trained and layer.trainable and not lora
