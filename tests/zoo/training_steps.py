"""Models that train in ways of their own: contrastive, distilled, augmented, regularized."""

import keras
import tensorflow as tf
from keras import layers

from tests.zoo.kinds import EXAMPLES, LABELS, Example, classes, kind, noise


def encoder(size=8, channels=3, widths=(4, 6)):
    body = [layers.Conv2D(n, 3, activation="relu") for n in widths]
    return keras.Sequential(
        [keras.Input((size, size, channels)), *body, layers.GlobalAveragePooling2D()]
    )


def with_head(classes=3):
    image = keras.Input((8, 8, 3))
    return image, layers.Dense(classes)(encoder()(image))


def apply(model, tape, loss, weights):
    gradients = tape.gradient(loss, weights)
    model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return {"loss": loss}


class SimCLR(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = encoder()
        self.projection = keras.Sequential([keras.Input((6,)), layers.Dense(4)])

    def train_step(self, images):
        with tf.GradientTape() as tape:
            views = [images + tf.random.normal(tf.shape(images), stddev=0.1) for _ in range(2)]
            z = [tf.math.l2_normalize(self.projection(self.encoder(v)), -1) for v in views]
            similarity = tf.matmul(z[0], z[1], transpose_b=True) / 0.1
            loss = LABELS(tf.range(tf.shape(images)[0]), similarity)
        weights = self.encoder.trainable_weights + self.projection.trainable_weights
        return apply(self, tape, loss, weights)


@kind("SimCLR (two augmented views)")
def simclr() -> Example:
    model = SimCLR()
    model.compile("adam")
    return Example(model, noise(8, 8, 3), None, watched=10, filters=10)


class Triplet(keras.Model):
    def __init__(self):
        super().__init__()
        self.network = keras.Sequential([encoder(), layers.Dense(4)])

    def call(self, inputs):
        anchor, positive, negative = (self.network(x) for x in inputs)
        return (
            tf.reduce_sum(tf.square(anchor - positive), -1),
            tf.reduce_sum(tf.square(anchor - negative), -1),
        )

    def train_step(self, data):
        with tf.GradientTape() as tape:
            near, far = self(data[0] if isinstance(data[0], tuple) else data)
            loss = tf.reduce_mean(tf.maximum(near - far + 0.5, 0.0))
        return apply(self, tape, loss, self.network.trainable_weights)


@kind("Triplet loss (Siamese network)")
def triplet() -> Example:
    model = Triplet()
    model.compile("adam")
    x = tf.data.Dataset.from_tensor_slices(tuple(noise(8, 8, 3, seed=n) for n in range(3)))
    return Example(model, x.batch(4), None, watched=10, filters=10)


class Distance(layers.Layer):
    def call(self, inputs):
        return tf.sqrt(tf.reduce_sum(tf.square(inputs[0] - inputs[1]), -1, keepdims=True) + 1e-6)


@kind("Siamese network by composition")
def siamese() -> Example:
    one, other, shared = keras.Input((8, 8, 3)), keras.Input((8, 8, 3)), encoder()
    model = keras.Model([one, other], layers.Dense(1)(Distance()([shared(one), shared(other)])))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    x = [noise(8, 8, 3), noise(8, 8, 3, seed=1)]
    return Example(model, x, classes(2)[:, None], watched=10, filters=10)


class Distiller(keras.Model):
    """From the Keras example: a fixed teacher, and a student that trains."""

    def __init__(self):
        super().__init__()
        self.teacher, self.student = keras.Model(*with_head()), keras.Model(*with_head())
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        soft = tf.nn.softmax(self.teacher(x, training=False) / 3)
        distilled = keras.losses.kl_divergence(soft, tf.nn.softmax(y_pred / 3))
        return LABELS(y, y_pred) + tf.reduce_mean(distilled)


@kind("Distiller (compute_loss with a teacher)")
def distiller() -> Example:
    model = Distiller()
    model.compile("adam")
    # The teacher's filters do not train.
    return Example(model, noise(8, 8, 3), classes(), watched=10, filters=20)


class MetricLearning(keras.Model):
    """After the Keras example on metric learning: Functional, with a `train_step` of its own."""

    def train_step(self, data):
        images, _ = data
        with tf.GradientTape() as tape:
            embeddings = tf.math.l2_normalize(self(images, training=True), -1)
            similarity = tf.matmul(embeddings, embeddings, transpose_b=True) / 0.2
            loss = self.compute_loss(y=tf.range(tf.shape(images)[0]), y_pred=similarity)
        return apply(self, tape, loss, self.trainable_weights)


@kind("Metric learning")
def metric_learning() -> Example:
    model = MetricLearning(*with_head(classes=4))
    model.compile("adam", LABELS)
    return Example(model, noise(8, 8, 3), classes(), watched=10, filters=10)


class MixUp(keras.Model):
    def train_step(self, data):
        x, y = data
        share = tf.random.uniform((tf.shape(x)[0], 1))
        mixed = x * share[..., None, None] + x[::-1] * (1 - share[..., None, None])
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y * share + y[::-1] * (1 - share), y_pred=self(mixed))
        return apply(self, tape, loss, self.trainable_variables)


@kind("MixUp (own train_step)")
def mixup() -> Example:
    model = MixUp(*with_head())
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    return Example(model, noise(8, 8, 3), keras.utils.to_categorical(classes()), 10, 10)


class Accumulating(keras.Model):
    """Adds the gradients of two steps up by hand."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.sums = [
            tf.Variable(tf.zeros(v.shape), trainable=False) for v in self.trainable_weights
        ]
        self.steps = tf.Variable(0, trainable=False)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        for total, gradient in zip(
            self.sums, tape.gradient(loss, self.trainable_variables), strict=True
        ):
            total.assign_add(gradient)
        self.steps.assign_add(1)
        tf.cond(self.steps % 2 == 0, self.apply, lambda: None)
        return {"loss": loss}

    def apply(self):
        self.optimizer.apply_gradients(zip(self.sums, self.trainable_variables, strict=True))
        for total in self.sums:
            total.assign(tf.zeros_like(total))


@kind("Gradient accumulation (own train_step)")
def accumulation() -> Example:
    model = Accumulating(*with_head())
    model.compile("adam", LABELS)
    model.optimizer.build(model.trainable_variables)
    return Example(model, noise(8, 8, 3), classes(), watched=10, filters=10)


class RDrop(keras.Model):
    """Makes a second pass in `compute_loss`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        again = self(x, training=True)
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        return loss + tf.reduce_mean(tf.square(tf.nn.softmax(again) - tf.nn.softmax(y_pred)))


@kind("R-Drop (second pass in compute_loss)")
def r_drop() -> Example:
    image = keras.Input((8, 8, 3))
    model = RDrop(image, layers.Dense(3)(layers.Dropout(0.3)(encoder()(image))))
    model.compile("adam", LABELS)
    return Example(model, noise(8, 8, 3), classes(), watched=10, filters=10)


class DQN(keras.Model):
    """Deep Q-learning: a network, and a target network that does not train."""

    def __init__(self):
        super().__init__()
        self.network, self.target = (keras.Model(*with_head(classes=2)) for _ in range(2))

    def call(self, x):
        return self.network(x)

    def train_step(self, batch):
        state, action, reward, following = batch
        best = tf.reduce_max(self.target(following), -1)
        with tf.GradientTape() as tape:
            q = tf.reduce_sum(self.network(state) * tf.one_hot(action, 2), -1)
            loss = tf.reduce_mean(keras.losses.huber(reward + 0.9 * best, q))
        return apply(self, tape, loss, self.network.trainable_variables)


@kind("Deep Q-network with a target network")
def dqn() -> Example:
    model = DQN()
    model.compile("adam")
    state, following = noise(8, 8, 3), noise(8, 8, 3, seed=1)
    batch = (state, classes(2), noise(), following)
    x = tf.data.Dataset.from_tensor_slices(batch).batch(EXAMPLES // 2)
    return Example(model, x, None, watched=10, filters=20)


class AddsLoss(keras.Model):
    """Has no loss but what it adds itself."""

    def __init__(self):
        super().__init__()
        self.inner = [
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(6, 3, activation="relu"),
        ]

    def call(self, x):
        z = self.inner[1](self.inner[0](x))
        self.add_loss(tf.reduce_mean(tf.square(tf.reduce_mean(z, (1, 2)) - 1)))
        return z


@kind("add_loss without a compiled loss")
def adds_loss() -> Example:
    model = AddsLoss()
    model.compile("adam")
    return Example(model, noise(8, 8, 3), None, watched=4, filters=10)


class Adversarial(keras.Model):
    """Trains on images that are moved along the sign of the gradient."""

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = self.compute_loss(y=labels, y_pred=self(images, training=True))
        images += 0.1 * tf.sign(tape.gradient(loss, images))
        return super().train_step((images, labels))


@kind("Adversarial training (FGSM)")
def adversarial() -> Example:
    model = Adversarial(*with_head())
    model.compile("adam", LABELS)
    return Example(model, noise(8, 8, 3), classes(), watched=10, filters=10)


class WithAuxiliaryHead(keras.Model):
    """Has a second head, which is called in training alone."""

    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(4, 3, activation="relu")
        self.second = layers.Conv2D(6, 3, activation="relu")
        self.side = layers.Conv2D(5, 1, activation="relu")
        self.pool = layers.GlobalAveragePooling2D()
        self.head, self.side_head = layers.Dense(3), layers.Dense(3)

    def call(self, images, training=None):
        x = self.first(images)
        if training:
            self.add_loss(tf.reduce_mean(self.side_head(self.pool(self.side(x))) ** 2))
        return self.head(self.pool(self.second(x)))


@kind("Auxiliary head, called in training alone")
def auxiliary_head() -> Example:
    model = WithAuxiliaryHead()
    model.compile("adam", LABELS)
    return Example(model, noise(8, 8, 3), classes(), watched=15, filters=15)
