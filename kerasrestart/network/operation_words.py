"""What TensorFlow's operations are called in messages."""

from __future__ import annotations

_WORDS = {
    "a convolution": ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv"),
    "a transposed convolution": ("Conv2DBackpropInput", "Conv3DBackpropInputV2"),
    "a matrix product": ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"),
    "a sum": ("Add", "AddV2", "AddN", "BiasAdd", "Sum"),
    "a difference": ("Sub",),
    "a squared difference": ("SquaredDifference",),
    "a product": ("Mul", "MulNoNan", "Prod"),
    "a quotient": ("RealDiv", "Div", "DivNoNan", "Reciprocal", "Inv"),
    "a power": ("Pow", "Square"),
    "a root": ("Sqrt", "Rsqrt"),
    "an exponential": ("Exp", "Expm1"),
    "a logarithm": ("Log", "Log1p"),
    "an absolute value": ("Abs",),
    "a negative": ("Neg",),
    "a sine": ("Sin",),
    "a cosine": ("Cos",),
    "a maximum": ("Maximum", "Max", "ArgMax"),
    "a minimum": ("Minimum", "Min", "ArgMin"),
    "a mean": ("Mean",),
    "a comparison": ("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"),
    "a sign": ("Sign",),
    "a choice": ("Select", "SelectV2"),
    "a clipping": ("ClipByValue",),
    "a rounding": ("Round", "Rint", "Floor", "Ceil"),
    "a softmax": ("Softmax", "LogSoftmax"),
    "a pooling": ("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"),
    "a reshape": ("Reshape", "Squeeze", "ExpandDims"),
    "a transpose": ("Transpose",),
    "a concatenation": ("ConcatV2", "Pack"),
    "a split": ("Split", "SplitV", "Unpack"),
    "a slice": ("Slice", "StridedSlice"),
    "a gather": ("GatherV2", "GatherNd", "ResourceGather"),
    "a loop": ("While", "StatelessWhile"),
    "a condition": ("If", "StatelessIf"),
    "a function": ("PartitionedCall", "StatefulPartitionedCall"),
    "a repetition": ("Tile", "BroadcastTo"),
    "a padding": ("Pad", "PadV2", "MirrorPad"),
    "ReLU": ("Relu",),
    "ReLU6": ("Relu6",),
    "leaky ReLU": ("LeakyRelu",),
    "ELU": ("Elu",),
    "SELU": ("Selu",),
    "GELU": ("Gelu",),
    "SiLU": ("Silu",),
    "sigmoid": ("Sigmoid",),
    "tanh": ("Tanh",),
    "softplus": ("Softplus",),
    "softsign": ("Softsign",),
}
_WORDS_OF = {kind: words for words, kinds in _WORDS.items() for kind in kinds}


def words_of(kind: str) -> str:
    """A type of operation, or several that are joined by "+", as people call it.

    Args:
        kind: As `RawOperation.type`, such as `"Relu+Pow"`.
    """
    return " and ".join(dict.fromkeys(map(_words_of_one, kind.split("+"))))


def _words_of_one(kind: str) -> str:
    if kind.removesuffix("V2").endswith("Grad"):
        return "a gradient"
    return _WORDS_OF.get(kind, f"TensorFlow's {kind}")
