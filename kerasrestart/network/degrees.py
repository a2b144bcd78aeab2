"""How the result of a TensorFlow operation grows when what it is computed from is scaled.

A tensor has degree d in another one where scaling that by a > 0 scales it by a^d: a mean has degree
one, a variance two, its inverse square root minus one, and a normalized tensor zero. Small
constants, such as the epsilon beside a variance, are taken for zero, and so is a learned one: this
finds norms, which are homogeneous except for it. What a score passes must be homogeneous exactly:
see `raw_operations.homogeneity_of`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kerasrestart.network import raw_operations as raw
from kerasrestart.network.tensorflow_internals import has_own_gradient

MIXING = raw.REDUCTIONS | raw.POOLING | {"EuclideanNorm"}
MOVING = (
    raw.RESHAPING
    | {"BroadcastTo", "Tile", "Transpose", "StridedSlice", "Slice", "GatherV2"}
    | {"Split", "SplitV", "Unpack", "Pad", "ConcatV2", "Pack"}
)
_OF_DEGREE_ONE = (
    raw.IDENTITIES | raw.HOMOGENEOUS | (MOVING - {"ConcatV2", "Pack"}) | MIXING | {"StopGradient"}
)
_POWERS = {"Square": 2.0, "Sqrt": 0.5, "Rsqrt": -0.5, "Reciprocal": -1.0, "Inv": -1.0}
# Their terms must be of one degree.
_WITH_EQUAL_TERMS = (
    raw.SUMS
    | raw.EXTREMES
    | raw.CHOICES
    | (raw.COMPARISONS - {"Sign"})
    | {"SquaredDifference", "ConcatV2", "Pack"}
)
_NEGLIGIBLE = 0.01
_NEGLIGIBLE_FLOOR = 0.1  # as of a deviation that something is divided by


def degree_of(op: tf.Operation, degrees: Sequence[float]) -> float | None:
    """The degree of an operation's result in a tensor.

    Args:
        op: The operation.
        degrees: Those of its inputs; 0 for what does not depend on the tensor.

    Returns:
        Its degree; None where it has none or that is not known.
    """
    if not any(degrees):
        return 0.0
    if op.type in _OF_DEGREE_ONE and not has_own_gradient(op):
        return sum(degrees)  # the other inputs are axes and shapes
    if op.type in raw.PRODUCTS or (op.type in raw.MATRIX_PRODUCTS and all(degrees)):
        return sum(degrees)  # a matrix product with weights makes new features
    if op.type in raw.QUOTIENTS:
        return degrees[0] - degrees[1]
    if op.type in _POWERS:
        return degrees[0] * _POWERS[op.type]
    if op.type == "Pow":
        exponent = tf.get_static_value(op.inputs[1])
        return None if exponent is None or np.size(exponent) > 1 else degrees[0] * float(exponent)
    if op.type in _WITH_EQUAL_TERMS:
        first = 1 if op.type in raw.CHOICES else 0  # what follows a condition
        last = -1 if op.type == "ConcatV2" else None  # without the axis
        pairs = list(zip(degrees, op.inputs, strict=True))[first:last]
        terms = {degree for degree, term in pairs if degree or not _is_negligible(term, op.type)}
        (degree,) = terms if len(terms) == 1 else (None,)
        if degree is None or op.type in raw.COMPARISONS:
            return None if degree is None else 0.0
        return 2 * degree if op.type == "SquaredDifference" else degree
    is_norm = op.type.startswith("FusedBatchNorm") and op.get_attr("is_training")
    return 0.0 if is_norm and not any(degrees[1:]) else None


def mixes_numbers(op: tf.Operation) -> bool:
    """Whether an operation makes one number of several, as a mean does."""
    return op.type in MIXING | raw.MATRIX_PRODUCTS or op.type.startswith("FusedBatchNorm")


def _is_negligible(term: tf.Tensor, kind: str) -> bool:
    value = tf.get_static_value(term)
    if value is None:
        return term.shape.num_elements() == 1  # such as an epsilon that is learned
    if kind == "Minimum":
        return bool(np.all(value >= 1 / _NEGLIGIBLE))
    limit = _NEGLIGIBLE_FLOOR if kind == "Maximum" else _NEGLIGIBLE
    return bool(np.all(np.abs(value) <= limit))
