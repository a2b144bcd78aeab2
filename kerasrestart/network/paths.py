"""What becomes of the channels of filters: who reads them, and whether they are theirs alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras import layers

from kerasrestart.network.kernels import reading_kernel


@dataclasses.dataclass(frozen=True)
class Reading:
    """A layer, and the places on its input at which it reads something."""

    layer: layers.Layer
    channels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Path:
    """What becomes of the channels of some filters of one layer.

    Attributes:
        readers: The layers that read them by a kernel, and where on their inputs.
        norms: The batch norms that they pass, and where.
        shared_with: What is added to them, or multiplied with them: names of layers, "an input".
        escapes: Where they go that is not followed: layers that mix channels in other ways, and
            "an output" of the model.
    """

    readers: tuple[Reading, ...]
    norms: tuple[Reading, ...]
    shared_with: tuple[str, ...]
    escapes: tuple[str, ...]

    def joined(self, other: Path) -> Path:
        """This path, and another beside it."""
        return Path(
            readers=united(self.readers + other.readers),
            norms=united(self.norms + other.norms),
            shared_with=tuple(sorted({*self.shared_with, *other.shared_with})),
            escapes=tuple(sorted({*self.escapes, *other.escapes})),
        )

    def obstacle(self) -> str | None:
        """Why these readers' weights cannot be set to zero; None if they can."""
        if self.escapes:
            return f"its channels go into {listed(self.escapes)}"
        if self.shared_with:
            return f"its channels are shared with {listed(self.shared_with)}"
        if fixed := [r.layer.name for r in self.readers if not _learns(r.layer)]:
            return f"its channels are read by {listed(fixed)}, of fixed weights"
        return None if self.readers else "nothing reads its channels"


def listed(names: Sequence[str], width: int = 60) -> str:
    """Names in a row, or as many of them as there is room for: "relu3, conv7 and 5 more".

    Args:
        names: One at least comes out.
        width: How many characters there is room for, but for the last words. Defaults to 60.
    """
    shown = 1
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= width:
        shown += 1
    more = f" and {len(names) - shown} more" if shown < len(names) else ""
    return ", ".join(names[:shown]) + more


def united(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Readings with each layer once."""
    found: dict[int, tuple[layers.Layer, set[int]]] = {}
    for reading in readings:
        found.setdefault(id(reading.layer), (reading.layer, set()))[1].update(reading.channels)
    return tuple(Reading(layer, tuple(sorted(places))) for layer, places in found.values())


def _learns(layer: layers.Layer) -> bool:
    """Whether the weights by which a layer reads can grow from zero."""
    return not getattr(layer, "lora_enabled", False) and reading_kernel(layer).trainable
