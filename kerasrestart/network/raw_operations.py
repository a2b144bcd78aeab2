"""What TensorFlow's operations between two layers do to the channels that pass through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.tensorflow_internals import has_own_gradient

# Give their input as it is.
IDENTITIES = frozenset(
    {"Identity", "Snapshot", "PreventGradient", "CheckNumerics", "EnsureShape", "Cast"}
    | {"PlaceholderWithDefault", "IdentityN"}
)
# Their results tell the shape of what they get, never its values.
SHAPES_ONLY = frozenset({"Shape", "ShapeN", "Rank", "Size", "ZerosLike", "OnesLike"})
# f(ax) = a f(x) for a > 0, number by number.
HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Abs", "Neg"})
SUMS = frozenset({"Add", "AddV2", "AddN", "Sub", "BiasAdd"})
PRODUCTS = frozenset({"Mul", "MulNoNan"})
QUOTIENTS = frozenset({"RealDiv", "Div", "DivNoNan"})
EXTREMES = frozenset({"Maximum", "Minimum"})
COMPARISONS = frozenset({"Greater", "GreaterEqual", "Less", "LessEqual", "Sign"})
CHOICES = frozenset({"Select", "SelectV2"})
# What they make of several tensors of filters is shared by these.
MERGES = SUMS | PRODUCTS | QUOTIENTS | EXTREMES | {"SquaredDifference"}
ELEMENTWISE = (
    IDENTITIES
    | HOMOGENEOUS
    | MERGES
    | COMPARISONS
    | CHOICES
    | {"Sigmoid", "Tanh", "Relu6", "Elu", "Selu", "Softplus", "Softsign", "Exp", "Expm1", "Log"}
    | {"Log1p", "Erf", "Erfc", "Square", "Sqrt", "Rsqrt", "Pow", "Sin", "Cos", "Round", "Floor"}
    | {"Ceil", "Rint", "Reciprocal", "Inv", "ClipByValue", "Atan", "Sinh", "Cosh", "StopGradient"}
    | {"Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "FloorMod", "Xlogy"}
    | {"Lgamma", "Digamma", "Asinh", "Acosh", "Atanh", "Erfinv", "IsNan", "IsFinite", "Xdivy"}
)
SCALES_AND_SHIFTS = IDENTITIES | SUMS | PRODUCTS | QUOTIENTS | {"Neg"}
# Of activation functions with one operation for their gradient: which input of that is the gradient
# by their output.
OUTPUT_GRADIENTS = {
    **{"Elu": 0, "LeakyRelu": 0, "Relu": 0, "Relu6": 0, "Selu": 0},
    **{"Sigmoid": 1, "Tanh": 1},
}
POOLING = frozenset({"MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"})
REDUCTIONS = frozenset({"Mean", "Max", "Sum", "Min"})
RESIZING = frozenset(
    {"ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"}
)
CONVOLUTIONS = frozenset(
    {"Conv2D", "Conv3D", "DepthwiseConv2dNative"} | {"Conv2DBackpropInput", "Conv3DBackpropInputV2"}
)
MATRIX_PRODUCTS = frozenset({"MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
RESHAPING = frozenset({"Reshape", "Squeeze", "ExpandDims"})
# How a result depends on a tensor, see `homogeneity_of`.
LINEAR, SCALE_FREE, CONSTANT = "linear", "scale free", "constant"
AFFINE, NONLINEAR = "affine", "nonlinear"


@dataclasses.dataclass(frozen=True, eq=False)
class RawOperation:
    """An operation of TensorFlow, or a group of them that maps each number by itself.

    Attributes:
        name: Where it is, for people: the layer that makes it, or in words, with that of a block.
        type: TensorFlow's name of the operation, of a group those of its operations.
        kind: `"elementwise"`; `"positions"` (moves, drops or averages positions along some axes);
            `"merge"`; `"concatenate"`; `"slice"` (some channels); `"reshape"`; `"transpose"`; or
            `"unknown"`.
        homogeneous: Whether f(ax) = a f(x) for a > 0.
        activates: Whether it is an activation function, applied to each number.
        axes: Of positions: the axes of the input along which numbers are mixed, moved or dropped.
        keeps_examples: Of a reshape: whether it surely leaves the first axis as it is, also where
            sizes are not known.
        axis: Of a concatenation: along which axis; None for a new one.
        permutation: Of a transpose: the axes of the input in their new order.
        channels: Of a slice: for each output, which channels of the input it is made of.
        shrinks: Whether it leaves fewer positions.
        kernels: Ids of the variables by which it makes new features, see `variable_ids`.
        maker: Of an operation with kernels: the innermost layer in whose call it is, or None.
        filters: Of an operation with kernels: how many features they make, 0 where not known.
        convolves: Of an operation with kernels: whether they are those of convolutions.
        mixes_kernels: Whether it makes the kernel of a convolution of its own kernels and the data.
    """

    name: str
    type: str
    kind: str = "unknown"
    homogeneous: bool = False
    activates: bool = False
    axes: frozenset[int] = frozenset()
    keeps_examples: bool = False
    axis: int | None = None
    permutation: tuple[int, ...] = ()
    channels: tuple[np.ndarray, ...] = ()
    shrinks: bool = False
    kernels: frozenset[int] = frozenset()
    maker: keras.Layer | None = None
    filters: int = 0
    convolves: bool = False
    mixes_kernels: bool = False

    def keeps_channels(self, channel: int) -> bool:
        """Whether each channel stays by itself and in its place.

        Args:
            channel: The channel axis of what goes in, 0 or more.
        """
        if self.kind == "positions":
            return channel not in self.axes
        if self.kind == "transpose":
            return self.permutation[channel] == channel
        return self.kind == "elementwise"

    def passes_scores(self, channel: int) -> bool:
        """Whether sum(z * dC/dz) over a channel and an example is the same before and behind it."""
        moves = self.kind == "transpose" and self.permutation[0] == 0
        passes = moves or (self.homogeneous and 0 not in self.axes)
        return passes and self.keeps_channels(channel)


def makes_features(op: tf.Operation, data: Sequence[tf.Tensor]) -> bool:
    """Whether an operation of data and weights makes new features of the data.

    A product with a kernel does, and whatever compares each feature with several weights. A scale
    or shift of each number does not.

    Args:
        op: The operation.
        data: Those of its inputs that hold data.
    """
    if op.type in MERGES:
        made = op.outputs[0].shape
        return made.rank is not None and all(_is_spread(t.shape, made) for t in data)
    return op.type in CONVOLUTIONS | MATRIX_PRODUCTS


def _is_spread(shape: tf.TensorShape, over: tf.TensorShape) -> bool:
    """Whether a tensor is repeated to fill a shape, as far as both are known."""
    if shape.rank is None:
        return False
    pairs = zip(shape, over, strict=False)
    return shape.rank != over.rank or any(a is not None and a != b for a, b in pairs)


def filter_axes(kind: str) -> tuple[int, ...]:
    """Along which axes of its kernel the filters of a type of convolution lie."""
    axes = {"Conv2D": (-1,), "Conv3D": (-1,), "DepthwiseConv2dNative": (-2, -1)}
    return axes.get(kind, (-2,))


def features_made(op: tf.Operation) -> int:
    """How many features a product of data and weights makes; 0 where that is not known."""
    made = op.outputs[0].shape
    return made[-1] or 0 if made.rank else 0


def raw_operation(op: tf.Operation, name: str) -> RawOperation:
    """Reads what an operation does that does not map each number by itself."""
    return RawOperation(name, op.type, **_effect(op))


def _effect(op: tf.Operation) -> dict:
    kind, shape = op.type, op.inputs[0].shape if len(op.inputs) else None
    if kind in POOLING:
        sizes = zip(op.get_attr("ksize"), op.get_attr("strides"), strict=True)
        axes = frozenset(axis for axis, both in enumerate(sizes) if both != (1, 1))
        return {"kind": "positions", "axes": axes, "homogeneous": True, "shrinks": True}
    if kind in RESIZING:
        return {"kind": "positions", "axes": frozenset({1, 2}), "homogeneous": True}
    if kind in RESHAPING:
        return {"kind": "reshape", "homogeneous": True, "keeps_examples": _keeps_examples(op)}
    if kind in MERGES:
        return {"kind": "merge"}
    if kind == "ConcatV2":
        axis = _static(op.inputs[-1])
        return {} if axis is None else {"kind": "concatenate", "axis": int(axis)}
    if kind == "Pack":
        last = op.outputs[0].shape.rank
        axis = op.get_attr("axis")
        return {} if last is None or axis % last == last - 1 else {"kind": "concatenate"}
    if kind in ("Split", "SplitV"):
        return _split(op)
    if shape is None or shape.rank is None:
        return {}
    if kind == "Transpose":
        order = _static(op.inputs[1])
        if order is None:
            return {}
        return {"kind": "transpose", "permutation": tuple(int(axis) for axis in order)}
    if kind == "StridedSlice":
        return _strided_slice(op, shape)
    touched = _axes(op)
    if touched is None:
        return {}
    return {
        "kind": "positions",
        "axes": frozenset(int(axis) % shape.rank for axis in touched),
        "homogeneous": True,
        "shrinks": kind in REDUCTIONS,
    }


def _keeps_examples(op: tf.Operation) -> bool:
    if op.type == "ExpandDims":
        axis = _static(op.inputs[1])
        return axis is not None and int(axis) not in (0, -1 - (op.inputs[0].shape.rank or 0))
    if op.type == "Squeeze":
        axes = op.get_attr("squeeze_dims")
        return bool(axes) and min(axes) > 0
    # `tf.reshape(x, [tf.shape(x)[0], ...])`
    first = op.inputs[1].op.inputs[0].op if op.inputs[1].op.type == "Pack" else op
    if first.type != "StridedSlice" or not first.get_attr("shrink_axis_mask"):
        return False
    shape, begin = first.inputs[0].op, _static(first.inputs[1])
    of_itself = shape.type == "Shape" and shape.inputs[0] is op.inputs[0]
    return of_itself and begin is not None and not np.any(begin)


def _axes(op: tf.Operation) -> Sequence[int] | None:
    """Along which axes an operation of one tensor works, with a linear map of each; else None."""
    kind = op.type
    if kind in REDUCTIONS or kind in ("ReverseV2", "Cumsum"):
        axes = _static(op.inputs[1])
    elif kind == "Roll":
        axes = _static(op.inputs[2])
    elif kind == "GatherV2":
        # Several indices keep the axis; one would drop it.
        alone = op.inputs[1].shape.rank == 1 and not op.get_attr("batch_dims")
        axes = _static(op.inputs[2]) if alone else None
    elif kind == "Unpack":
        axes = op.get_attr("axis")
    elif kind in ("Pad", "MirrorPad", "PadV2"):
        if kind == "PadV2" and not _is_zero(op.inputs[2]):
            return None
        widths = _static(op.inputs[1])
        axes = None if widths is None else np.flatnonzero(np.any(widths, axis=1))
    elif kind == "Tile":
        times = tf.get_static_value(op.inputs[1], partial=True)
        # Some of the numbers alone may be known when it is traced.
        axes = None if times is None else np.flatnonzero([n is None or n != 1 for n in times])
    elif kind == "BroadcastTo":
        before, after = op.inputs[0].shape, op.outputs[0].shape
        if before.rank is None or before.rank != after.rank:
            return None
        axes = np.flatnonzero([a != b for a, b in zip(before, after, strict=True)])
    elif kind == "Slice":
        begin, sizes = _static(op.inputs[1]), _static(op.inputs[2])
        if begin is None or sizes is None:
            return None
        axes = np.flatnonzero((begin != 0) | (sizes != -1))
    else:
        return None
    return None if axes is None else [int(axis) for axis in np.ravel(axes)]


def _split(op: tf.Operation) -> dict:
    value, axis = (op.inputs[1], op.inputs[0]) if op.type == "Split" else op.inputs[::2]
    axis, rank = _static(axis), value.shape.rank
    if axis is None or rank is None:
        return {}
    axis = int(axis) % rank
    if axis != rank - 1:
        return {"kind": "positions", "axes": frozenset({axis}), "homogeneous": True}
    sizes = [tensor.shape[-1] for tensor in op.outputs]
    if None in sizes:
        return {}
    return {
        "kind": "slice",
        "channels": tuple(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])),
    }


def _strided_slice(op: tf.Operation, shape: tf.TensorShape) -> dict:
    """Cuts positions, inserts axes of length one, or takes some channels of the last axis."""
    begin, end, strides = (_static(tensor) for tensor in op.inputs[1:4])
    if begin is None or strides is None:
        return {}
    masks = {
        name: op.get_attr(f"{name}_mask")
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    given = sum(not (masks["new_axis"] | masks["ellipsis"]) >> i & 1 for i in range(len(begin)))
    axes, channels, axis = set(), None, 0
    for i in range(len(begin)):
        bit = 1 << i
        if masks["ellipsis"] & bit:
            axis += shape.rank - given
        elif masks["new_axis"] & bit:
            if axis >= shape.rank:
                return {}  # behind the channels
        else:
            whole = masks["begin"] & bit and masks["end"] & bit and strides[i] == 1
            if masks["shrink_axis"] & bit:
                axes.add(axis)
            elif not whole:
                if axis == shape.rank - 1:
                    if end is None or shape[-1] is None:
                        return {}
                    first = None if masks["begin"] & bit else int(begin[i])
                    last = None if masks["end"] & bit else int(end[i])
                    channels = np.arange(shape[-1])[first : last : int(strides[i])]
                else:
                    axes.add(axis)
            axis += 1
    if shape.rank - 1 in axes:
        return {}
    if channels is not None:
        alone = not axes and not masks["new_axis"]
        return {"kind": "slice", "channels": (channels,)} if alone else {}
    return {"kind": "positions", "axes": frozenset(axes), "homogeneous": True}


def homogeneity_of(op: tf.Operation, of_inputs: Sequence[str]) -> str:
    """How the result of an elementwise operation depends on one tensor, from how its inputs do.

    Euler's theorem needs f(ax) = a f(x) exactly: any constant that is added counts here, however
    small. A norm is homogeneous except for such a constant, so `degrees.degree_of`, which finds
    norms, takes it for zero.

    Args:
        op: An operation of `ELEMENTWISE`.
        of_inputs: How each input depends on it: `LINEAR` where it is homogeneous of degree one,
            `SCALE_FREE` of degree zero, `CONSTANT`, `AFFINE` for a sum with a constant, else
            `NONLINEAR`.

    Returns:
        One of these.
    """
    kind, found = op.type, set(of_inputs)
    if found == {CONSTANT}:
        return CONSTANT
    if kind in IDENTITIES:
        return NONLINEAR if has_own_gradient(op) else of_inputs[0]
    if kind in HOMOGENEOUS:
        keeps = of_inputs[0] in (LINEAR, SCALE_FREE) or kind == "Neg"
        return of_inputs[0] if keeps else NONLINEAR
    if kind in COMPARISONS:
        both = zip(of_inputs, op.inputs, strict=True)
        return SCALE_FREE if all(h == LINEAR or _is_zero(t) for h, t in both) else NONLINEAR
    if kind in CHOICES:
        if of_inputs[0] not in (CONSTANT, SCALE_FREE):
            return NONLINEAR
        values = zip(of_inputs[1:], op.inputs[1:], strict=True)
        return LINEAR if all(h == LINEAR or _is_zero(t) for h, t in values) else NONLINEAR
    if kind in EXTREMES:
        both = zip(of_inputs, op.inputs, strict=True)
        return LINEAR if all(h == LINEAR or _is_zero(t) for h, t in both) else NONLINEAR
    if kind in SUMS:
        if found == {LINEAR}:
            return LINEAR
        return AFFINE if found <= {LINEAR, AFFINE, CONSTANT} else NONLINEAR
    if kind in PRODUCTS or kind in QUOTIENTS:
        first, *rest = sorted(of_inputs, key=(LINEAR, AFFINE).__contains__, reverse=True)
        free = all(h in (CONSTANT, SCALE_FREE) for h in rest)
        below = kind in QUOTIENTS and of_inputs[1] not in (CONSTANT, SCALE_FREE)
        if not free or below:
            return NONLINEAR
        return first if SCALE_FREE not in rest or first == LINEAR else NONLINEAR
    return NONLINEAR


def _static(tensor: tf.Tensor) -> np.ndarray | None:
    value = tf.get_static_value(tensor)
    return None if value is None else np.asarray(value)


def _is_zero(tensor: tf.Tensor) -> bool:
    if tensor.op.type == "ZerosLike":
        return True
    if tensor.op.type in ("Cast", "Identity", "BroadcastTo", "Fill"):
        return _is_zero(tensor.op.inputs[1 if tensor.op.type == "Fill" else 0])
    value = _static(tensor)
    return value is not None and not np.any(value)
