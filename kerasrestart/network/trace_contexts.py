"""What surrounds a traced pass, so that it runs as a training step does and changes nothing."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.hooks import hooked


def without_recomputing() -> contextlib.AbstractContextManager[None]:
    """Lets a trace look into what `tf.recompute_grad` calls again for its gradient."""

    def as_it_is(_: Any, args: Any, kwargs: Any) -> Any:
        return args[0] if args else kwargs["f"]

    return hooked([(tf, as_it_is)], "recompute_grad")


def creating_variables() -> contextlib.AbstractContextManager[Any]:
    """Lets a pass create variables, as a step does that makes an optimizer when it is first run."""

    def with_known_value(create: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        value = options.get("initial_value")
        if tf.is_symbolic_tensor(value):  # of the trace, which ends before the variable does
            known = tf.get_static_value(value)
            options["initial_value"] = value if known is None else known
        return create(**options)

    return tf.variable_creator_scope(with_known_value)


@contextlib.contextmanager
def python_state_kept(model: keras.Model) -> Iterator[None]:
    """Undoes what a traced pass does in Python: counts in attributes of the model, random draws."""

    def numbers() -> dict[str, Any]:
        return {name: value for name, value in vars(model).items() if type(value) in (int, float)}

    before = numbers()
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        for name in numbers().keys() - before.keys():
            if hasattr(type(model), name):  # a count that begins with the class's own
                object.__delattr__(model, name)
        for name, value in before.items():
            object.__setattr__(model, name, value)
        random.setstate(states[0])
        np.random.set_state(states[1])


class _FirstReplica(tf.distribute.ReplicaContext):
    """The first replica of a strategy, as if it were the only one."""

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """Returns the value of this replica."""
        return value


def in_replica() -> contextlib.AbstractContextManager[Any]:
    """Lets a step run as in a replica of a strategy: it cannot differentiate outside of one."""
    if not tf.distribute.in_cross_replica_context():
        return contextlib.nullcontext()
    return _FirstReplica(tf.distribute.get_strategy(), 0)
