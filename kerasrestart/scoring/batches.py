"""Examples as batches, in whatever form they were given."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import keras
import tensorflow as tf

from kerasrestart.network.arguments import check_whole
from kerasrestart.network.input_specs import is_missing
from kerasrestart.network.own_functions import place_of
from kerasrestart.network.text import cause_of, one_line, shown
from kerasrestart.scoring.replicas import split_batches


def as_batches(x: Any, y: Any = None, sample_weight: Any = None, *, size: int) -> tf.data.Dataset:
    """Makes batches of what was given as `x`, in order.

    Args:
        x: Arrays, or a structure of them; or batches with their targets: a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        y: Targets, where `x` is arrays. Defaults to None: there are none.
        sample_weight: Weights of the examples, where `x` and `y` are arrays. Defaults to None.
        size: Examples in a batch, where `x` is arrays.

    Returns:
        Batches `(x,)`, `(x, y)` or `(x, y, sample_weight)`; a `tf.data.Dataset` as it is.

    Raises:
        TypeError: `x` is something else, or `y` or `sample_weight` are not arrays.
        ValueError: `y` or `sample_weight` are given beside batches, or have another number of rows
            than `x`; or batches have no end, or a `PyDataset` has none; or `size` is not a whole
            number of 1 or more.
    """
    check_whole("batch_size", size, 1)
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y and sample_weight must be left out beside a data set, which holds its own. "
                "Received: both"
            )
        if not isinstance(x, tf.data.Dataset):
            return _from_py_dataset(x)
        if x.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "x must have an end, as x.take(STEPS) has after STEPS batches. Received: a "
                "tf.data.Dataset that is repeated without one"
            )
        return x
    _check_arrays("x", x, "arrays, a tf.data.Dataset or a keras.utils.PyDataset")
    for name, given in (("y", y), ("sample_weight", sample_weight)):
        # None, or None for each output, stands for none.
        leaves = keras.tree.flatten(given)
        if not leaves or not all(map(is_missing, leaves)):
            _check_arrays(name, given, "arrays, one row per example")
    rows = {len(leaf) for leaf in _given((x, y, sample_weight))}
    if len(rows) > 1:
        raise ValueError(
            "All arrays of x, y and sample_weight must have one row per example. Received: "
            f"{' and '.join(map(str, sorted(rows)))} rows"
        )
    return tf.data.Dataset.from_tensor_slices(_present(x, y, sample_weight)).batch(size)


def _check_arrays(name: str, given: Any, expected: str) -> None:
    leaves = _given(given)
    if not leaves:
        raise TypeError(f"{name} must be {expected}. Received: {shown(given)}")
    for leaf in leaves:
        if not getattr(leaf, "shape", ()):
            inside = "" if leaf is given else f" of {type(leaf).__name__}"
            raise TypeError(f"{name} must be {expected}. Received: {type(given).__name__}{inside}")


def _given(structure: Any) -> list[Any]:
    """The arrays of a structure; an optional input of a model may be missing."""
    return [leaf for leaf in keras.tree.flatten(structure) if not is_missing(leaf)]


def call_in_inference(model: keras.Model, x: Any) -> Any:
    """Calls a model in inference mode, whether or not its `call` has a `training` argument.

    Raises:
        ValueError: The model raised an error.
    """
    parameters = inspect.signature(model.call).parameters.values()
    takes = any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)
    with naming_data(model):
        return model(x, training=False) if takes else model(x)


@contextlib.contextmanager
def naming_data(model: keras.Model, of_kind: type[Exception] | Any = Exception) -> Iterator[None]:
    """Makes an error of a model or its loss one line about the data.

    Args:
        model: The model.
        of_kind: The type of the error, or several. Defaults to any.

    Raises:
        ValueError: There was such an error.
    """
    try:
        yield
    except of_kind as error:
        raised = f"{type(error).__name__}: {one_line(cause_of(error), 200)}{place_of(error)}"
        raise ValueError(
            f"x and y must be as model '{model.name}' and its loss take them. Received: data on "
            f"which they raised {raised}"
        ) from error


def batch_runner(
    model: keras.Model, step: Callable[..., None], batches: tf.data.Dataset
) -> Callable[[], None]:
    """Makes a function that runs a step on each batch, compiled as `fit` compiles its own.

    One trace serves batches of all lengths, and all calls. Run it inside `metrics_kept`
    where the step computes the loss, which updates metrics.

    Args:
        model: The model.
        step: A function of `x`, `y` and `sample_weight`.
        batches: As `as_batches` returns them.
    """
    strategy = model.distribute_strategy
    parts = split_batches(batches, strategy)
    if not model.run_eagerly:
        step = tf.function(step, reduce_retracing=True, autograph=False)
        if strategy.num_replicas_in_sync == 1:
            spec = keras.utils.unpack_x_y_sample_weight(parts.element_spec)
            step = cast(Any, step).get_concrete_function(*spec)

    def run() -> None:
        for batch in parts:
            # Such as a label beyond the classes, which a trace does not show.
            with naming_data(model, (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)):
                strategy.run(step, keras.utils.unpack_x_y_sample_weight(batch))

    return run


@contextlib.contextmanager
def metrics_kept(model: keras.Model) -> Iterator[None]:
    """Leaves the metrics of a model as they were, also those of its losses."""
    before = {id(m): [v.numpy() for v in m.variables] for m in model.metrics}
    try:
        yield
    finally:
        for metric in model.metrics:
            values = before.get(id(metric), [])
            if len(values) != len(metric.variables):  # made meanwhile
                metric.reset_state()
                continue
            for variable, value in zip(metric.variables, values, strict=True):
                variable.assign(value)


def has_targets(batches: tf.data.Dataset) -> bool:
    """Whether batches hold targets beside the inputs."""
    return keras.utils.unpack_x_y_sample_weight(batches.element_spec)[1] is not None


def _from_py_dataset(source: keras.utils.PyDataset) -> tf.data.Dataset:
    count = source.num_batches
    if not count:
        raise ValueError(f"x must have batches, and an end. Received: num_batches={count}")

    def batch(number: int) -> tuple[Any, ...]:
        return _present(*keras.utils.unpack_x_y_sample_weight(source[number]))

    def batches() -> Iterator[tuple[Any, ...]]:
        return map(batch, range(count))

    def spec(array: Any) -> tf.TensorSpec:
        tensor = tf.convert_to_tensor(array)
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

    signature = keras.tree.map_structure(spec, batch(0))
    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return made.apply(tf.data.experimental.assert_cardinality(count))


def _present(x: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    """What there is of a batch. As tuples: tf.data would stack a list of inputs into one."""
    parts = (x,) if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
    return keras.tree.lists_to_tuples(parts)
