"""What filters are scored by, and when; readable without TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any

from kerasrestart.network.arguments import check_whole
from kerasrestart.scoring.criterion_names import CRITERIA, REVERSED


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Scores fewer batches or epochs than all, to save time.

    Example:
    ```python
    scoring = kerasrestart.Scoring("taylor", every=8, window=1)
    restart = kerasrestart.PartialRestart(criterion=scoring)
    ```

    Args:
        criterion: What filters are scored by: a name, such as `"taylor"`, `"magnitude"` or
            `"random"`, one with `reversed_` before it (the most useful filter scores lowest), or a
            function; see `kerasrestart.scoring.criteria.get`. Defaults to `"taylor"`.
        every: Every N-th batch is scored, from the first of an epoch on; scores are means over the
            examples of these. Weights are the same as with all batches, until a restart. With
            `steps_per_execution`, batches that run as one are scored as one. Defaults to 1.
        window: Score only in epochs after which a restart can come within this many epochs, the
            epoch itself included; and in none after the last restart. With `EverySteps`, only the
            batches after which a restart can come within this many batches. Defaults to None: in
            all.

    Raises:
        ValueError: An argument is out of range, the criterion's name is not known, or its function
            cannot be called with a feature map, its gradient and the axis of the filters.
    """

    criterion: Any = "taylor"
    every: int = 1
    window: int | None = None

    def __post_init__(self):
        if not (isinstance(self.criterion, str) and self.criterion in CRITERIA):
            # Only here, so that a name of the list is checked without importing TensorFlow.
            from kerasrestart.scoring import criteria

            criteria.get(self.criterion)
        check_whole("every", self.every, 1)
        if self.window is not None:
            check_whole("window", self.window, 1)

    @property
    def is_reversed(self) -> bool:
        """Whether the most useful filter scores lowest, so that scores are negative."""
        if isinstance(self.criterion, str):
            return self.criterion.startswith(REVERSED)
        return bool(getattr(self.criterion, "reversed", False))
