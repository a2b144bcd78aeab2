"""Placeholder until merge."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cell:
    """x."""

    model: str
    arm: str
    seed: int
    variation: str = ""
