"""An identity that reports the gradient which flows back through it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from kerasrestart.network.tensorflow_internals import record_gradient, tape_paused


def probe(tensor: tf.Tensor, report: Callable[[tf.Tensor], tf.Tensor | None]) -> tf.Tensor:
    """Returns `tensor` unchanged, and hears each gradient by it that a tape computes.

    ```python
    from kerasrestart.scoring.probe import probe

    layer, head, gradients = layers.Conv2D(4, 3), layers.Dense(1), []
    with tf.GradientTape() as tape:
        z = probe(layer(x), gradients.append)
        loss = tf.reduce_mean(head(z))
    tape.gradient(loss, layer.trainable_variables)  # `gradients` now holds dL/dz
    ```

    A tape computes the gradients by all that it has recorded and that the target depends on,
    whatever the sources. So nothing is reported where the target does not depend on the tensor, or
    where `tf.stop_gradient` lies between them.

    Args:
        tensor: A floating tensor, symbolic or eager.
        report: Called with the gradient, of the shape and dtype of `tensor`, once for each
            backward pass. Where it returns a tensor, that is the gradient which flows on: such as
            a probe of it, where it is differentiated itself.

    Returns:
        A tensor of the same values.
    """
    # tf.custom_gradient registers each function for the life of the process, and with it the graph
    # that it was traced in. Recording on the tape leaves nothing behind, and in graphs that a tape
    # does not see, such as the body of a loop, the probe is a plain identity.
    with tape_paused():
        output = tf.identity(tensor)

    def backward(gradient: tf.Tensor | tf.IndexedSlices) -> list[tf.Tensor | tf.IndexedSlices]:
        passed_on = report(tf.convert_to_tensor(gradient))
        return [gradient if passed_on is None else passed_on]

    record_gradient("GradientProbe", output, tensor, backward)
    return output


def same_graph(tensor: tf.Tensor, graph: tf.Graph | None) -> bool:
    """Whether a tensor belongs to a graph; None stands for eager execution."""
    return (tensor.graph if tf.is_symbolic_tensor(tensor) else None) is graph


def current_graph() -> tf.Graph | None:
    """The graph that is being built, or None in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
