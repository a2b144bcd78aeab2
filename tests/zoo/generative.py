"""Models that generate, with a training step of their own."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.zoo.kinds import Example, kind, noise


def conv(filters, **options):
    return layers.Conv2D(filters, 3, padding="same", activation="relu", **options)


def up(filters, **options):
    return layers.Conv2DTranspose(filters, 3, 2, padding="same", **options)


class VAE(keras.Model):
    """From the Keras example: an encoder, a decoder, and no `call`."""

    def __init__(self):
        super().__init__()
        image, code = keras.Input((8, 8, 1)), keras.Input((2,))
        x = layers.Flatten()(conv(6, strides=2)(conv(4, strides=2)(image)))
        self.encoder = keras.Model(image, [layers.Dense(2)(x), layers.Dense(2)(x)])
        x = layers.Reshape((2, 2, 4))(layers.Dense(16, activation="relu")(code))
        x = up(6, activation="relu")(x)
        self.decoder = keras.Model(code, up(1, activation="sigmoid")(x))
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def train_step(self, images):
        with tf.GradientTape() as tape:
            mean, log_var = self.encoder(images)
            z = mean + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mean))
            entropy = keras.losses.binary_crossentropy(images, self.decoder(z))
            divergence = -0.5 * (1 + log_var - tf.square(mean) - tf.exp(log_var))
            loss = tf.reduce_mean(tf.reduce_sum(entropy, (1, 2))) + tf.reduce_mean(divergence)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


@kind("Variational autoencoder (own train_step)")
def vae() -> Example:
    model = VAE()
    model.compile("adam")
    return Example(model, noise(8, 8, 1), None, watched=16, filters=17)


class DCGAN(keras.Model):
    """From the Keras example: two networks, two tapes, two optimizers."""

    def __init__(self):
        super().__init__()
        image, code = keras.Input((8, 8, 1)), keras.Input((4,))
        x = layers.LeakyReLU(0.2)(layers.Conv2D(6, 4, 2, padding="same")(image))
        x = layers.LeakyReLU(0.2)(layers.Conv2D(8, 4, 2, padding="same")(x))
        self.discriminator = keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))
        x = layers.Reshape((2, 2, 4))(layers.Dense(16)(code))
        x = layers.LeakyReLU(0.2)(up(8)(x))
        self.generator = keras.Model(code, up(1, activation="sigmoid")(x))

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real):
        with tf.GradientTape() as tape:
            d_loss = self.d_loss(real)
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            g_loss = self.g_loss(self.discriminator(self.fake(real)))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        return {"loss": d_loss + g_loss}

    def fake(self, real):
        return self.generator(tf.random.normal((tf.shape(real)[0], 4)))

    def d_loss(self, real):
        fakes, reals = tf.ones((tf.shape(real)[0], 1)), tf.zeros((tf.shape(real)[0], 1))
        judged = self.discriminator(tf.concat([self.fake(real), real], 0))
        return self.entropy(tf.concat([fakes, reals], 0), judged)

    def g_loss(self, judged):
        return self.entropy(tf.zeros_like(judged), judged)


@kind("DCGAN (two optimizers)")
def dcgan() -> Example:
    model = DCGAN()
    model.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4))
    # The generator's last convolution is left out: it makes an image.
    return Example(model, noise(8, 8, 1), None, watched=22, filters=23)


class WGANGP(DCGAN):
    """From the Keras example: a critic, with a penalty on its gradient by the images."""

    def d_loss(self, real):
        fake = self.fake(real)
        between = real + tf.random.uniform((tf.shape(real)[0], 1, 1, 1)) * (fake - real)
        with tf.GradientTape() as tape:
            tape.watch(between)
            judged = self.discriminator(between)
        slope = tf.norm(tf.reshape(tape.gradient(judged, between), [-1, 64]), axis=1)
        penalty = 10 * tf.reduce_mean((slope - 1) ** 2)
        return tf.reduce_mean(self.discriminator(fake) - self.discriminator(real)) + penalty

    def g_loss(self, judged):
        return -tf.reduce_mean(judged)


@kind("WGAN with a gradient penalty")
def wgan_gp() -> Example:
    model = WGANGP()
    model.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4))
    return Example(model, noise(8, 8, 1), None, watched=22, filters=23)


class Diffusion(keras.Model):
    """A denoiser and a copy of it that follows by an exponential moving average."""

    def __init__(self):
        super().__init__()
        self.network, self.ema_network = self.denoiser(), self.denoiser()
        self.ema_network.set_weights(self.network.get_weights())
        self.ema_network.trainable = False

    @staticmethod
    def denoiser():
        image, rate = keras.Input((8, 8, 1)), keras.Input((1, 1, 1))
        x = layers.Concatenate()([image, layers.UpSampling2D(8)(rate)])
        x = conv(6)(conv(4)(x))
        return keras.Model([image, rate], layers.Conv2D(1, 1, kernel_initializer="zeros")(x))

    def train_step(self, images):
        noises = tf.random.normal(tf.shape(images))
        rates = tf.random.uniform((tf.shape(images)[0], 1, 1, 1))
        noisy = tf.sqrt(1 - rates) * images + tf.sqrt(rates) * noises
        with tf.GradientTape() as tape:
            loss = self.loss(noises, self.network([noisy, rates], training=True))
        weights = self.network.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for weight, average in zip(self.network.weights, self.ema_network.weights, strict=True):
            average.assign(0.9 * average + 0.1 * weight)
        return {"loss": loss}


@kind("Denoising diffusion with an EMA copy")
def diffusion() -> Example:
    model = Diffusion()
    model.compile("adam", loss=keras.losses.MeanAbsoluteError())
    # The copy does not train.
    return Example(model, noise(8, 8, 1), None, watched=10, filters=22)


class ZeroDCE(keras.Model):
    """Low-light enhancement without targets, after the Keras example."""

    def __init__(self):
        super().__init__()
        image = keras.Input((8, 8, 3))
        first, second = conv(4), conv(4)
        x = first(image)
        x = layers.Concatenate()([x, second(x)])
        self.network = keras.Model(image, layers.Conv2D(6, 3, padding="same", activation="tanh")(x))

    def call(self, images):
        x = images
        for curve in tf.split(self.network(images), 2, axis=-1):
            x = x + curve * (tf.square(x) - x)
        return x

    def train_step(self, images):
        with tf.GradientTape() as tape:
            enhanced = self(images)
            exposure = tf.reduce_mean(tf.square(tf.nn.avg_pool2d(enhanced, 4, 4, "VALID") - 0.6))
            smooth = tf.reduce_mean(tf.square(enhanced[:, 1:] - enhanced[:, :-1]))
            loss = 10 * exposure + smooth
        weights = self.network.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


@kind("Zero-DCE (loss without targets)")
def zero_dce() -> Example:
    model = ZeroDCE()
    model.compile("adam")
    return Example(model, noise(8, 8, 3), None, watched=8, filters=14)


@kind("PixelCNN with masked kernels")
def pixel_cnn() -> Example:
    class Masked(layers.Layer):
        def __init__(self, filters):
            super().__init__()
            self.conv = layers.Conv2D(filters, 3, padding="same")

        def build(self, shape):
            self.conv.build(shape)
            self.mask = ops.convert_to_tensor(
                [[[[1.0]]] * 3, [[[1.0]], [[0.0]], [[0.0]]], [[[0.0]]] * 3]
            )

        def call(self, x):
            self.conv.kernel.assign(self.conv.kernel * self.mask)
            return tf.nn.relu(self.conv(x))

    model = keras.Sequential([keras.Input((8, 8, 1)), Masked(4), Masked(6), layers.Conv2D(1, 1)])
    model.compile("adam", "mse")
    return Example(model, noise(8, 8, 1), noise(8, 8, 1), watched=10, filters=11)
