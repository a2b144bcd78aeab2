"""What filters can be scored by: the named criteria, and the form that one of your own takes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasrestart.network.arguments import check
from kerasrestart.network.own_functions import check_function, name_of, naming
from kerasrestart.network.text import did_you_mean, shown
from kerasrestart.scoring.affine_contributions import affine_contribution
from kerasrestart.scoring.criterion_names import REVERSED
from kerasrestart.scoring.feature_maps import over_positions
from kerasrestart.scoring.over_mean import over_mean
from kerasrestart.scoring.products import product_of
from kerasrestart.scoring.scored_part import unshared_gradient

Saliency = Callable[..., Any]


class Needs(enum.Enum):
    """What a criterion is computed from; the form of its `saliency` goes with it.

    - `CONTRIBUTION`, `ACTIVATION`, `ACTIVATION_GRADIENT`: `(feature_map, gradient, channel_axis) ->
      [batch, filters]`, summed over positions; the caller divides by their number and averages over
      examples. `gradient` is None for `ACTIVATION`, and the result linear in it for the others,
      since the caller turns the gradient of the loss into that of one example's cost afterwards.
      The feature map of a `CONTRIBUTION` is read where sum(z * dC/dz) over positions costs least,
      which may be after a pooling. That of the others is read directly after the activation;
      without one, after the batch norm or the layer itself.
    - `WEIGHT_GRADIENT`: `(weights, gradients) -> [filters]`, both float32 `[weights, filters]`: the
      scale and shift of a filter's batch norm where that is trained, else its kernel and bias. The
      gradients are those of the mean cost of a batch; the caller averages over batches.
    - `WEIGHTS`: `(kernel) -> [filters]`, a float32 numpy array `[weights, filters]`.
    - `NOTHING`: `(generator, filters) -> [filters]`, a `numpy.random.Generator` and a number.
    """

    CONTRIBUTION = "feature map and gradient"
    ACTIVATION = "activation"
    ACTIVATION_GRADIENT = "gradient by the activation"
    WEIGHT_GRADIENT = "weights and their gradients"
    WEIGHTS = "weights"
    NOTHING = "nothing"


_OF_MAPS = ("feature_map", "gradient", "channel_axis")
_ARGUMENTS = {
    **dict.fromkeys((Needs.CONTRIBUTION, Needs.ACTIVATION, Needs.ACTIVATION_GRADIENT), _OF_MAPS),
    Needs.WEIGHT_GRADIENT: ("weights", "gradients"),
    Needs.WEIGHTS: ("kernel",),
    Needs.NOTHING: ("generator", "filters"),
}


def _form(needs: Needs) -> str:
    arguments = _ARGUMENTS[needs]
    result = "[batch, filters]" if arguments is _OF_MAPS else "[filters]"
    return f"function ({', '.join(arguments)}) -> {result}"


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A way to score filters: the lower, the less useful.

    Attributes:
        name: Its name.
        needs: What it is computed from.
        saliency: A pure function, of the form that `needs` says.
        of_layer: Turns a layer's mean saliencies, float32 `[filters]`, into its scores. Defaults to
            None: they are the scores.
        times_outgoing: Whether the saliencies of each batch are multiplied by the L1 norm of the
            filter's outgoing weights, as they are after the step. Defaults to False.
        reversed: Whether scores change their sign, so that the most useful filter has the lowest.
            Defaults to False.
        signed: Of a contribution, the saliency before its absolute value is taken, so that several
            parts can be added. Defaults to None: their saliencies are added.

    Raises:
        ValueError: `needs` is not one of `Needs`, or a function cannot be called in its form.
    """

    name: str
    needs: Needs
    saliency: Saliency
    of_layer: Callable[[np.ndarray], np.ndarray] | None = None
    reversed: bool = False
    times_outgoing: bool = False
    signed: Saliency | None = None

    def __post_init__(self):
        check("needs", self.needs, isinstance(self.needs, Needs), "one of Needs, as Needs.WEIGHTS")
        form = f"a {_form(self.needs)}"
        check_function("saliency", self.saliency, form, *_ARGUMENTS[self.needs])
        if self.signed is not None:
            check_function("signed", self.signed, form, *_ARGUMENTS[self.needs])
        if self.of_layer is not None:
            form = "a function (saliencies) -> scores"
            check_function("of_layer", self.of_layer, form, "saliencies")

    @property
    def needs_step(self) -> bool:
        """Whether it needs anything of the batches; else it is available at any time."""
        return self.needs not in (Needs.WEIGHTS, Needs.NOTHING)

    @property
    def needs_maps(self) -> bool:
        """Whether it needs feature maps, or gradients by them."""
        return self.needs in (Needs.CONTRIBUTION, Needs.ACTIVATION, Needs.ACTIVATION_GRADIENT)

    @property
    def needs_gradient(self) -> bool:
        """Whether it needs a backward pass."""
        return self.needs_step and self.needs is not Needs.ACTIVATION

    def of_part(self, feature_map: tf.Tensor, gradient: Any, channel_axis: int) -> tf.Tensor:
        """What a map adds to the saliencies of its filters: `[batch, filters]`, see `joined`.

        Args:
            feature_map: The feature map; or a gradient by it that is differentiated itself.
            gradient: The gradient by that, or None.
            channel_axis: The axis of the filters.
        """
        if self.signed is not None:
            return self.signed(feature_map, gradient, channel_axis)
        found = self.call(feature_map, unshared_gradient(gradient), channel_axis)
        found = tf.constant(found) if isinstance(found, np.ndarray) else found
        if not tf.is_tensor(found) or found.shape.rank not in (None, 2):
            shape = f"shape {found.shape}" if tf.is_tensor(found) else shown(found)
            raise ValueError(
                f"Criterion '{self.name}' must give a tensor [batch, filters]. Received: {shape}"
            )
        return found

    def joined(self, of_parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """The saliencies of a map of all that `of_part` gave of it, `[batch, filters]`."""
        joined = of_parts[0] if len(of_parts) == 1 else tf.add_n(of_parts)
        return joined if self.signed is None else tf.abs(joined)

    def call(self, *arguments: Any) -> Any:
        """Calls `saliency`.

        Args:
            *arguments: As `needs` says.

        Raises:
            ValueError: A function of the user's has raised an error.
        """
        with naming("criterion", self.saliency):
            return self.saliency(*arguments)

    def finish(self, saliencies: np.ndarray) -> np.ndarray:
        """Turns a layer's mean saliencies into its scores."""
        scores = saliencies
        if self.of_layer is not None:
            with naming("of_layer", self.of_layer):
                scores = self.of_layer(saliencies)
        return 0 - scores if self.reversed else scores  # not -scores, which makes zeros -0.0

    def check(self, shape: Sequence[int | None], layer: str, filters: int) -> None:
        """Raises ValueError where what it made of a layer has not one number for each filter."""
        if tuple(shape) != (filters,):
            raise ValueError(
                f"Criterion '{self.name}' must give one number for each of the {filters} filters "
                f"of layer '{layer}'. Received: shape {tuple(shape)}"
            )

    def reverse(self) -> Criterion:
        """The negative control: the same criterion with the ranking of filters reversed."""
        return dataclasses.replace(self, name=REVERSED + self.name, reversed=not self.reversed)


def taylor(feature_map: tf.Tensor, gradient: tf.Tensor, channel_axis: int) -> tf.Tensor:
    """First-order Taylor criterion, before it is averaged.

    The change of the cost when a feature map is set to zero, to first order: |sum of z * dC/dz|
    over its positions. The absolute value is taken for each example, once all positions are summed.
    Division by the number of positions and the mean over examples are left to the caller.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference" (ICLR 2017), equation 8; criterion of "Partial Restart of Neural Network".

    Args:
        feature_map: z, float `[batch, ..., filters]`, or channels first.
        gradient: Gradient of a loss by z, same shape and dtype.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`, in units of the loss.
    """
    return tf.abs(_contribution(feature_map, gradient, channel_axis))


def _contribution(feature_map: tf.Tensor, gradient: tf.Tensor, channel_axis: int) -> tf.Tensor:
    found = affine_contribution(feature_map, gradient, channel_axis)
    if found is not None:
        return found
    return over_positions(product_of(feature_map, gradient), channel_axis)


def taylor_weight(weights: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """First-order Taylor criterion on weights: (sum of w * dL/dw)^2 over a filter's weights.

    The squared change of the mean cost of a batch when the filter is set to zero, to first order.
    After a convolution with a trained batch norm its weights are the norm's scale and shift: with
    the kernel's the sum vanishes, since the norm makes the loss blind to their scale. The mean over
    batches is left to the caller. Penalties on weights that the loss includes are a part of dL/dw;
    an optimizer's `weight_decay` is not.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019),
    equations 8 and 9 (a group's contribution); with a batch norm as in the authors' own code.

    Args:
        weights: float32 `[weights, filters]`.
        gradients: Gradients of the mean cost of a batch by them, same shape.

    Returns:
        float32 `[filters]`, in units of the loss squared.
    """
    return tf.square(tf.reduce_sum(weights * gradients, axis=0))


def activation(feature_map: tf.Tensor, gradient: Any, channel_axis: int) -> tf.Tensor:
    """Sum over positions of |activation|; its mean is then divided by the mean of the layer.

    Source: Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning" (ICML
    2023), equation 1: the score by which ReDo calls a neuron dormant.

    Args:
        feature_map: float `[batch, ..., filters]`, or channels first.
        gradient: Not used.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`.
    """
    del gradient
    return over_positions(tf.abs(tf.cast(feature_map, tf.float32)), channel_axis)


def contribution(feature_map: tf.Tensor, gradient: Any, channel_axis: int) -> tf.Tensor:
    """Sum over positions of |activation|; the filter's outgoing weights are a factor.

    The score is the mean of |activation| over positions and examples, times the sum of the absolute
    weights by which other layers read the filter. Those after a flattening count at all positions.

    Source: Dohare et al., "Loss of plasticity in deep continual learning" (Nature 632, 2024),
    equation 1 of continual backpropagation: the contribution utility, without its running mean.

    Args:
        feature_map: float `[batch, ..., filters]`, or channels first.
        gradient: Not used.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`, without the factor.
    """
    return activation(feature_map, gradient, channel_axis)


def apoz(feature_map: tf.Tensor, gradient: Any, channel_axis: int) -> tf.Tensor:
    """Number of positions where the activation is not zero: its mean is 1 - APoZ.

    Made for ReLU. Of an activation that is never exactly zero every filter scores 1.

    Source: Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient
    Deep Architectures" (2016), equation 1: the average percentage of zeros.

    Args:
        feature_map: float `[batch, ..., filters]`, or channels first.
        gradient: Not used.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`.
    """
    del gradient
    return over_positions(tf.cast(tf.not_equal(feature_map, 0), tf.float32), channel_axis)


def mean_gradient(feature_map: tf.Tensor, gradient: tf.Tensor, channel_axis: int) -> tf.Tensor:
    """Sum over positions of |dC/dz|, z being the activation.

    Source: Liu and Wu, "Channel pruning based on mean gradient for accelerating Convolutional
    Neural Networks" (Signal Processing 156, 2019); here by the feature map, absolute values first.

    Args:
        feature_map: Not used.
        gradient: Gradient of a loss by z, float `[batch, ..., filters]`, or channels first.
        channel_axis: The axis of the filters.

    Returns:
        float32 `[batch, filters]`, in units of the loss over those of z.
    """
    del feature_map
    return over_positions(tf.abs(tf.cast(gradient, tf.float32)), channel_axis)


def magnitude(kernel: np.ndarray) -> np.ndarray:
    """L1 norm of a filter's kernel, without its bias.

    Source: Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017), section 3.1.

    Args:
        kernel: `[weights, filters]`.

    Returns:
        `[filters]`.
    """
    return np.abs(kernel).sum(axis=0, dtype=np.float64)


def magnitude_l2(kernel: np.ndarray) -> np.ndarray:
    """L2 norm of a filter's kernel, without its bias.

    Source: He et al., "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks"
    (IJCAI 2018), equation 2.

    Args:
        kernel: `[weights, filters]`.

    Returns:
        `[filters]`.
    """
    return np.sqrt(np.square(kernel, dtype=np.float64).sum(axis=0))


def orthogonality(kernel: np.ndarray) -> np.ndarray:
    """One minus the mean absolute cosine between a filter's kernel and the others of its layer.

    1 where a filter is orthogonal to all others. In the source the filters with the largest sum of
    absolute cosines are dropped; the ranking is the same. It divides by the number of all filters,
    and so does this. A filter of zeros is orthogonal to all.

    Source: Prakash et al., "RePr: Improved Training of Convolutional Filters" (CVPR 2019),
    equations 1 and 2: inter-filter orthogonality.

    Args:
        kernel: `[weights, filters]`.

    Returns:
        `[filters]`, above 0 and at most 1.
    """
    kernel = kernel.astype(np.float64)
    norms = np.linalg.norm(kernel, axis=0)
    unit = kernel / np.where(norms > 0, norms, 1)
    cosines = np.abs(unit.T @ unit)
    np.fill_diagonal(cosines, 0)
    return 1 - cosines.sum(axis=0) / len(cosines)


def random(generator: np.random.Generator, filters: int) -> np.ndarray:
    """The control that looks at nothing: uniform between 0 and 1, `[filters]`."""
    return generator.random(filters)


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("taylor", Needs.CONTRIBUTION, taylor, signed=_contribution),
        Criterion("taylor_weight", Needs.WEIGHT_GRADIENT, taylor_weight),
        Criterion("magnitude", Needs.WEIGHTS, magnitude),
        Criterion("magnitude_l2", Needs.WEIGHTS, magnitude_l2),
        Criterion("activation", Needs.ACTIVATION, activation, of_layer=over_mean),
        Criterion("contribution", Needs.ACTIVATION, contribution, times_outgoing=True),
        Criterion("apoz", Needs.ACTIVATION, apoz),
        Criterion("gradient", Needs.ACTIVATION_GRADIENT, mean_gradient),
        Criterion("orthogonality", Needs.WEIGHTS, orthogonality),
        Criterion("random", Needs.NOTHING, random),
    )
}


def get(criterion: str | Criterion | Saliency) -> Criterion:
    """Returns the criterion that a name or function means.

    Args:
        criterion: A name in `CRITERIA`, or one with `reversed_` before it, by which the most useful
            filter has the lowest score; a `Criterion`; or a function `(feature_map, gradient,
            channel_axis) -> [batch, filters]` as `taylor` is: float32, linear in the gradient.

    Raises:
        ValueError: The name is not known, or the function cannot be called so.
    """
    if isinstance(criterion, Criterion):
        return criterion
    if callable(criterion):
        form = f"a name, or a {_form(Needs.CONTRIBUTION)}"
        check_function("criterion", criterion, form, *_OF_MAPS)
        return Criterion(name_of(criterion), Needs.CONTRIBUTION, criterion)
    if isinstance(criterion, str):
        if criterion in CRITERIA:
            return CRITERIA[criterion]
        if criterion.removeprefix(REVERSED) in CRITERIA:
            return CRITERIA[criterion.removeprefix(REVERSED)].reverse()
    known = [*CRITERIA, *(REVERSED + name for name in CRITERIA)]
    hint = did_you_mean(criterion, known) if isinstance(criterion, str) else ""
    raise ValueError(
        f"criterion must be one of {list(CRITERIA)}, one of these after {REVERSED!r}, or a "
        f"{_form(Needs.CONTRIBUTION)}. Received: {criterion!r}{hint}"
    )
