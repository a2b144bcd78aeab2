"""How filters are restarted; readable without TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any

from kerasrestart.network.arguments import check, check_choice, check_whole
from kerasrestart.restart.initializer_names import INITIALIZERS

OUTGOING = ("keep", "zero")
SECOND_MOMENTS = ("zero", "survivors")


@dataclasses.dataclass(frozen=True)
class Reset:
    """What a restart does to a filter's weights, norm and optimizer state.

    Example:
    ```python
    reset = kerasrestart.Reset("he_uniform", outgoing="zero", second_moment="survivors")
    restart = kerasrestart.PartialRestart(reset=reset)
    ```

    Args:
        initializer: What draws the new incoming weights: `"uniform"`, `"he"`, `"xavier"`,
            `"minmax"`, `"distribution"`, `"orthogonal_to_survivors"`, `"norm_matched"`, `"clone"`,
            `"own"` (that of the layer), a function `(kernel, axis, seed, chosen) -> kernel`, or any
            Keras initializer by name, config or instance; see `kerasrestart.restart.initializers`.
            Defaults to `"uniform"`.
        outgoing: The weights by which other layers read the filter: `"keep"` leaves them, and the
            network's function jumps (as in the paper); `"zero"` sets them to zero, so that a new
            filter changes nothing until it has learned. Layers whose outgoing weights are shared
            with other filters are then left out. Defaults to `"keep"`.
        second_moment: An adaptive optimizer's second moments of the new weights: `"zero"`, or
            `"survivors"`, the mean of the surviving filters'. Defaults to `"zero"`.
        norms: Whether the filter's channel of its norm is reset too. Defaults to True.
        compensate_bias: With `outgoing="zero"`: whether the biases of the layers that read the
            filter (without one, the batch norm after it) absorb its mean contribution, so that
            only the deviation from the mean is lost. Defaults to False.
        grace_restarts: With `outgoing="zero"`: for how many restarts a restarted filter cannot be
            selected again. Without outgoing weights it scores zero at first. With `EverySteps`
            its `maturity` counts instead. Defaults to 1.
        drop_epochs: With `outgoing="zero"`: for how many epochs the network trains without the
            selected filters before they are re-initialised (RePr). A round begins when they are.
            Defaults to 0.

    Raises:
        ValueError: An argument is not known or out of range, or two exclude each other.
    """

    initializer: Any = "uniform"
    outgoing: str = "keep"
    second_moment: str = "zero"
    norms: bool = True
    compensate_bias: bool = False
    grace_restarts: int = 1
    drop_epochs: int = 0

    def __post_init__(self):
        self._check_initializer()
        check_choice("second_moment", self.second_moment, SECOND_MOMENTS)
        for name in ("norms", "compensate_bias"):
            value = getattr(self, name)
            check(name, value, isinstance(value, bool), "True or False")
        check_outgoing(self.outgoing, beside="compensate_bias=True" if self.compensate_bias else "")
        check_whole("grace_restarts", self.grace_restarts, 0)
        check_whole("drop_epochs", self.drop_epochs, 0)
        if self.drop_epochs and self.outgoing != "zero":
            raise ValueError(
                "outgoing must be 'zero' beside drop_epochs, as filters are dropped by outgoing "
                f"weights of zero. Received: outgoing={self.outgoing!r}, "
                f"drop_epochs={self.drop_epochs}"
            )
        is_name = isinstance(self.initializer, str)  # an array compares by element
        if is_name and self.initializer == "zeros" and self.outgoing == "zero":
            raise ValueError(
                "initializer must be another, or outgoing='keep': a filter with weights of zero on "
                "both sides would never learn again. Received: initializer='zeros', outgoing='zero'"
            )

    def _check_initializer(self) -> None:
        if not (isinstance(self.initializer, str) and self.initializer in INITIALIZERS):
            # Only here, so that a name of the list is checked without importing TensorFlow.
            from kerasrestart.restart import initializers

            initializers.get(self.initializer)

    @property
    def grace(self) -> int:
        """For how many restarts a restarted filter cannot be selected again."""
        return self.grace_restarts if self.outgoing == "zero" else 0


def check_outgoing(outgoing: str, *, beside: str = "") -> None:
    """Checks the rule for outgoing weights, and that there is something to compensate.

    Args:
        outgoing: The rule.
        beside: The argument by which biases absorb what filters contributed. Defaults to none.

    Raises:
        ValueError: The rule is not known, or it is not `"zero"` beside that argument.
    """
    check_choice("outgoing", outgoing, OUTGOING)
    if beside and outgoing != "zero":
        raise ValueError(
            f"outgoing must be 'zero' beside {beside}, which replaces the contribution of weights "
            f"that are set to zero. Received: outgoing={outgoing!r}"
        )
