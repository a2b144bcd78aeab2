"""The Taylor score by brute force: the formula in float64.

Nothing here knows of kerasrestart. Layers are computed by formulas of its own from their weights;
the place of z is named by the test, directly after a filter's activation and batch norm.
"""

import numpy as np
import tensorflow as tf

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: tf.maximum(x, 0.0),
    "tanh": tf.tanh,
    "sigmoid": lambda x: 1 / (1 + tf.exp(-x)),
    "elu": lambda x: tf.where(x > 0, x, tf.exp(x) - 1),
    "leaky_relu": lambda x: tf.where(x > 0, x, 0.2 * x),
}


class Float64:
    """Applies Keras layers in float64 and keeps what each returned, use by use."""

    def __init__(self, training=False, masks=None):
        self.training = training
        self.masks = masks or {}  # by name of a dropout layer: what it multiplies a batch by
        self.outputs = {}

    def __call__(self, layer, x):
        y = getattr(self, f"_{type(layer).__name__.lower()}")(layer, x)
        self.outputs.setdefault(layer.name, []).append(y)
        return y

    def _conv(self, layer, y):
        if layer.use_bias:
            y = y + weight(layer.bias)
        return ACTIVATIONS[layer.activation.__name__](y)

    def _conv2d(self, layer, x):
        # One group at a time: float64 has no gradient of a grouped convolution.
        inputs = tf.split(x, layer.groups, axis=-1)
        kernels = tf.split(weight(layer.kernel), layer.groups, axis=-1)
        parts = [
            tf.nn.conv2d(part, kernel, layer.strides, layer.padding.upper())
            for part, kernel in zip(inputs, kernels, strict=True)
        ]
        return self._conv(layer, tf.concat(parts, axis=-1))

    def _depthwiseconv2d(self, layer, x):
        strides = (1, *layer.strides, 1)
        y = tf.nn.depthwise_conv2d(x, weight(layer.kernel), strides, layer.padding.upper())
        return self._conv(layer, y)

    def _conv1d(self, layer, x):
        y = tf.nn.conv1d(x, weight(layer.kernel), layer.strides, layer.padding.upper())
        return self._conv(layer, y)

    def _conv3d(self, layer, x):
        y = tf.nn.conv3d(x, weight(layer.kernel), (1, *layer.strides, 1), layer.padding.upper())
        return self._conv(layer, y)

    def _conv2dtranspose(self, layer, x):
        # Each input position adds its kernel to the output: strides of 1, padding "valid".
        kernel = weight(layer.kernel)
        height, width, filters, _ = kernel.shape
        rows, columns = x.shape[1], x.shape[2]
        y = 0.0
        for i in range(height):
            for j in range(width):
                part = tf.einsum("bhwc,fc->bhwf", x, kernel[i, j])
                after = (height - 1 - i, width - 1 - j)
                y += tf.pad(part, ((0, 0), (i, after[0]), (j, after[1]), (0, 0)))
        assert y.shape[1:] == (rows + height - 1, columns + width - 1, filters)
        return self._conv(layer, y)

    def _batchnormalization(self, layer, x):
        if self.training:
            mean = tf.reduce_mean(x, axis=list(range(len(x.shape) - 1)))
            variance = tf.reduce_mean((x - mean) ** 2, axis=list(range(len(x.shape) - 1)))
        else:
            mean, variance = weight(layer.moving_mean), weight(layer.moving_variance)
        normal = (x - mean) / tf.sqrt(variance + layer.epsilon)
        return normal * weight(layer.gamma) + weight(layer.beta)

    def _dense(self, layer, x):
        return ACTIVATIONS[layer.activation.__name__](x @ weight(layer.kernel) + weight(layer.bias))

    def _dropout(self, layer, x):
        return x * self.masks[layer.name] if self.training else x

    def _activation(self, layer, x):
        return ACTIVATIONS[layer.activation.__name__](x)

    def _relu(self, layer, x):
        return tf.maximum(x, 0.0)

    def _elu(self, layer, x):
        return ACTIVATIONS["elu"](x)

    def _leakyrelu(self, layer, x):
        return tf.where(x > 0, x, layer.negative_slope * x)

    def _prelu(self, layer, x):
        return tf.where(x > 0, x, weight(layer.alpha) * x)

    def _maxpooling2d(self, layer, x):
        return tf.nn.max_pool2d(x, layer.pool_size, layer.strides, layer.padding.upper())

    def _averagepooling2d(self, layer, x):
        return tf.nn.avg_pool2d(x, layer.pool_size, layer.strides, layer.padding.upper())

    def _maxpooling1d(self, layer, x):
        return tf.nn.max_pool1d(x, layer.pool_size, layer.strides, layer.padding.upper())

    def _globalaveragepooling2d(self, layer, x):
        return tf.reduce_mean(x, axis=(1, 2))

    def _globalmaxpooling2d(self, layer, x):
        return tf.reduce_max(x, axis=(1, 2))

    def _zeropadding2d(self, layer, x):
        return tf.pad(x, ((0, 0), *layer.padding, (0, 0)))

    def _cropping2d(self, layer, x):
        (top, bottom), (left, right) = layer.cropping
        return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]

    def _upsampling2d(self, layer, x):
        return tf.repeat(tf.repeat(x, layer.size[0], axis=1), layer.size[1], axis=2)

    def _flatten(self, layer, x):
        return tf.reshape(x, (x.shape[0], -1))

    def _reshape(self, layer, x):
        return tf.reshape(x, (x.shape[0], *layer.target_shape))

    def _permute(self, layer, x):
        return tf.transpose(x, (0, *layer.dims))


def weight(variable):
    return tf.constant(variable.numpy().astype("float64"))


def chain(model):
    """The forward pass of a Sequential model."""

    def forward(run, x):
        for layer in model.layers:
            x = run(layer, x)
        return x

    return forward


def cross_entropy(y, logits):
    """The cost of each example."""
    return tf.reduce_logsumexp(logits, axis=-1) - tf.gather(logits, y, batch_dims=1)


def brute_force_scores(
    forward,
    z_of,
    x,
    y,
    *,
    weights=None,
    batch_size=None,
    training=False,
    masks=None,
    cost_of=cross_entropy,
):
    """Scores by the formula.

    Args:
        forward: `(run, x) -> logits`, which calls `run(layer, x)` for each layer.
        z_of: By name of the convolution, the name of the layer whose output is z.
        x: Inputs.
        y: Classes.
        weights: What the cost of each example is multiplied by.
        batch_size: All at once, but where batch norm in training mode ties the examples of a batch
            together. The gradient is that of the sum of the costs: of each example's own cost, or
            where they are tied B * dL/dz, L the mean over the batch.
        training: Whether batch norm uses the batch's own statistics, and dropout drops.
        masks: By name of a dropout layer, by what it multiplies all of `x`'s rows.
        cost_of: `(y, what forward returns) -> [batch]`.

    Returns:
        By name of the convolution, float64 `[filters]`.
    """
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, "float64")
    sums = dict.fromkeys(z_of, 0.0)
    batch_size = batch_size or len(x)
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        run = Float64(training, {name: mask[rows] for name, mask in (masks or {}).items()})
        with tf.GradientTape() as tape:
            batch = tf.constant(x[rows].astype("float64"))
            tape.watch(batch)
            cost = tf.reduce_sum(weights[rows] * cost_of(y[rows], forward(run, batch)))
        z = {name: run.outputs[place] for name, place in z_of.items()}
        for name, gradients in tape.gradient(cost, z).items():
            for own, used, gradient in zip(run.outputs[name], z[name], gradients, strict=True):
                positions = np.prod(own.shape[1:-1])
                product = (used * gradient).numpy()
                per_example = product.reshape(len(product), -1, product.shape[-1]).sum(axis=1)
                sums[name] = sums[name] + np.abs(per_example / positions).sum(axis=0)
    return {name: total / len(x) for name, total in sums.items()}


def assert_scores_match(scores, reference, rtol=1e-4):
    assert list(scores) == list(reference)
    for name, expected in reference.items():
        assert scores[name].dtype == np.float32
        assert expected.max() > 1e-5, "a reference of nothing proves nothing"
        np.testing.assert_allclose(
            scores[name], expected, rtol=rtol, atol=0.01 * rtol * expected.max(), err_msg=name
        )
