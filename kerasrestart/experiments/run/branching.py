"""By what a run may differ from the one whose baseline it goes on from."""

from __future__ import annotations

AFTER_BASELINE = frozenset(
    (
        *("init", "criterion", "fraction", "threshold", "scope", "cap", "normalize", "layers"),
        *("min_survivors", "outgoing", "grace_restarts", "second_moment", "reset_norm"),
        *("compensate_bias", "score_every", "score_window"),
        *("max_restarts", "stop_on_repeat", "epochs", "baseline"),
    )
)
"""The settings that change nothing before the first restart: in these a run may differ from that of
which it takes the baseline."""
