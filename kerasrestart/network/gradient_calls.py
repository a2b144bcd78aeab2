"""What a call of `tf.GradientTape.gradient` differentiates, and by what."""

from __future__ import annotations

from typing import Any


def target_and_sources(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The target and the sources of a call, from its arguments."""
    given = dict(zip(("tape", "target", "sources"), args, strict=False)) | kwargs
    return given["target"], given["sources"]
