"""Seeds made from seeds: every draw of a run is a function of its one seed and of its place."""

from __future__ import annotations

import numpy as np


def derive_seed(seed: int, place: int) -> int:
    """A seed that is a function of `seed` and `place`, statistically independent of its siblings.

    Args:
        seed: 0 or more.
        place: Which of the draws under this seed: 0 or more.

    Returns:
        From 0 to 2^31 - 1.
    """
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0] >> 1)
