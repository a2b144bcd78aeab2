"""What a tensor is computed from."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf


def tensors_before(tensor: tf.Tensor) -> Iterator[tf.Tensor]:
    """Yields a tensor, and all in its graph that it is computed from, each once."""
    seen, stack = {id(tensor)}, [tensor]
    while stack:
        current = stack.pop()
        yield current
        new = {id(source): source for source in current.op.inputs if id(source) not in seen}
        seen |= new.keys()
        stack += new.values()
