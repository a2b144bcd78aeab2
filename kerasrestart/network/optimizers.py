"""Finds the optimizers of a model, held or seen in its training step, and those inside one."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from kerasrestart.network.hooks import hooked

_Optimizers = weakref.WeakValueDictionary[int, keras.optimizers.Optimizer]


def known_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers of a model, each once.

    The compiled one counts, each that the model or a layer inside it keeps in an attribute, also in
    a list or dict, and each that was seen to apply gradients in a training step since `compile`.
    """
    known: set[int] = set()
    held = list(_search(model, known))
    used = [one for one in _used(model).values() if id(one) not in known]
    inside = {id(leaf) for one in used for leaf in leaves(one) if leaf is not one}
    return held + [one for one in used if id(one) not in inside]


def note_used(model: keras.Model, optimizers: Iterable[keras.optimizers.Optimizer]) -> None:
    """Notes that optimizers train a model, such as one in a global variable."""
    used = _used(model)
    used.update({id(optimizer): optimizer for optimizer in optimizers})
    compiled = model.optimizer
    _seen[model] = (None if compiled is None else weakref.ref(compiled)), used


def _used(model: keras.Model) -> _Optimizers:
    """Those that were noted while the model had the compiled optimizer that it has now."""
    compiled, used = _seen.get(model, (None, None))
    now = getattr(model, "optimizer", None)  # which a model lacks that is not compiled
    same = now is (None if compiled is None else compiled())
    return used if used is not None and same else weakref.WeakValueDictionary()


class Update(NamedTuple):
    """An optimizer, and the gradients and variables that it is applied to, if these are given."""

    optimizer: keras.optimizers.Optimizer
    gradients: Sequence[Any]
    variables: Sequence[Any]


def hearing_updates(
    hear: Callable[[Callable[[], Any], Update], Any],
) -> contextlib.AbstractContextManager[None]:
    """Hears each call of `apply` of any optimizer; of one inside another, too.

    Args:
        hear: Called in place of `apply`, with a function that runs it and with the update; gives
            the result.
    """

    def hook(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        # Keras takes an iterator of variables, too, which can be read once.
        optimizer, *args = (_listed(value) for value in args)
        kwargs = {name: _listed(value) for name, value in kwargs.items()}
        given = dict(zip(("grads", "trainable_variables"), args, strict=False)) | kwargs
        gradients, variables = given.get("grads"), given.get("trainable_variables")
        found = Update(
            optimizer,
            () if gradients is None else gradients,
            () if variables is None else variables,
        )
        return hear(lambda: call(optimizer, *args, **kwargs), found)

    kinds, found = [keras.optimizers.Optimizer], []
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind is keras.optimizers.Optimizer or "apply" in vars(kind):
            found.append(kind)
    return hooked([(kind, hook) for kind in dict.fromkeys(found)], "apply")


def unwrap(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer inside a `LossScaleOptimizer`; any other as it is."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers that hold slots: one, or those of a `MultiOptimizer`."""
    inner = unwrap(optimizer)
    if isinstance(inner, keras_class("MultiOptimizer")):
        return list(inner.optimizers)
    return [inner]


def keras_class(name: str) -> Any:
    """Returns a class of `keras.optimizers` for `isinstance`; `()` if this Keras lacks it."""
    return getattr(keras.optimizers, name, ())


def _listed(value: Any) -> Any:
    """An iterator as a list; any other value as it is."""
    return list(value) if isinstance(value, Iterator) else value


def _search(value: Any, seen: set[int]) -> Iterator[keras.optimizers.Optimizer]:
    # First what most attributes of a layer are: numbers, texts, functions.
    if not isinstance(value, _HOLDERS) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.optimizers.Optimizer):
        # What a wrapper holds is reached through the wrapper, not a second time by itself.
        seen.update(id(leaf) for leaf in leaves(value))
        yield value
    elif isinstance(value, keras.layers.Layer):
        for inner in list(vars(value).values()):
            yield from _search(inner, seen)
    elif isinstance(value, Mapping):
        for inner in list(value.values()):
            yield from _search(inner, seen)
    elif isinstance(value, list | tuple):
        for inner in list(value):
            yield from _search(inner, seen)


# What is an optimizer, or may hold one.
_HOLDERS = (keras.optimizers.Optimizer, keras.layers.Layer, Mapping, list, tuple)

# By model: its compiled optimizer, and those that were seen to train it. None keeps another alive.
_seen: weakref.WeakKeyDictionary[keras.Model, tuple[weakref.ref | None, _Optimizers]] = (
    weakref.WeakKeyDictionary()
)
