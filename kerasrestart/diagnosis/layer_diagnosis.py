"""The numbers of one layer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class LayerDiagnosis:
    """What `diagnose` finds in one layer.

    Attributes:
        filters: Number of filters, or of units.
        dead: Indices of the filters whose activation is zero on all data.
        dormant: Indices of those with a mean |activation| of at most 0.025 of the layer's mean.
        useless: Indices of those with a Taylor score of at most a tenth of the layer's mean; None
            without a loss.
        duplicate: Indices of those whose activations correlate above 0.99 with an earlier filter's.
        effective_rank: Effective rank of the layer's features.
        width: Number of filters that `duplicate` and `effective_rank` are about: all, or a sample.
        weight_norm: Mean over the filters of the L2 norm of their kernels.
        gradient_norm: Mean over the filters of the L2 norm of the gradient of the mean cost by
            their kernels; None without a loss.
        lowest_score: Lowest Taylor score, divided by the layer's mean; None without a loss, or
            where all scores are zero.
    """

    filters: int
    dead: tuple[int, ...]
    dormant: tuple[int, ...]
    useless: tuple[int, ...] | None
    duplicate: tuple[int, ...]
    effective_rank: float
    width: int
    weight_norm: float
    gradient_norm: float | None
    lowest_score: float | None

    @property
    def is_finite(self) -> bool:
        """Whether rank, norms and lowest score are finite numbers, where they are known."""
        numbers = (self.effective_rank, self.weight_norm, self.gradient_norm, self.lowest_score)
        return all(math.isfinite(number) for number in numbers if number is not None)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data, for JSON."""
        values = dataclasses.asdict(self).items()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}

    def scalars(self) -> dict[str, float]:
        """The numbers as curves: counts of filters, rank and norms, by name."""
        values = {
            name: len(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None and name not in ("filters", "width")
        }
        return {name: float(value) for name, value in values.items()}
