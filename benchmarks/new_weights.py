"""How large Adam's first steps of new weights are, beside those of the surviving filters.

    python -m benchmarks.new_weights [--steps=400] [--restarts=5]

MiniNet trains on the built-in shapes. Then a tenth of each convolution's filters, drawn at random,
is re-initialised, and ten more steps are made: with second moments of zero, with those of the
survivors, and with a count of steps for each new weight, which a class derived from Adam keeps
here (as in Dohare et al., Nature 2024). The table has the mean absolute change of the new incoming
weights over that of the survivors' in the same layer: medians over restarts and layers. Two minutes
on two idle cores.
"""

from __future__ import annotations

import statistics
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import kerasrestart
from kerasrestart import models
from kerasrestart.experiments.data.shapes import draw_shapes

BATCH, IMAGES, FIRST = 64, 2000, 10
WAYS = ("zero", "survivors", "steps per weight")


class CountingAdam(keras.optimizers.Adam):
    """Adam with a count of steps for each weight, by which its bias is corrected."""

    def build(self, variables):
        """Adds the counts."""
        super().build(variables)
        # Not variables of the optimizer: a restart would refuse slots that it does not know.
        self.counts = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """As Adam's, element by element."""
        index = self._get_variable_index(variable)
        m, v, count = self._momentums[index], self._velocities[index], self.counts[index]
        count.assign_add(tf.ones(count.shape))
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (tf.square(gradient) - v) * (1 - self.beta_2))
        corrected_m = m / (1 - self.beta_1**count)
        corrected_v = v / (1 - self.beta_2**count)
        self.assign_sub(variable, learning_rate * corrected_m / (tf.sqrt(corrected_v) + 1e-7))


def compiled(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """MiniNet with an optimizer."""
    model = models.mininet()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    optimizer.build(model.trainable_variables)
    return model


def first_steps(trained: keras.Model, way: str, outgoing: str, seed: int, batches: Any) -> Any:
    """Ratios of the first steps after a restart: `[layers, steps]`."""
    counts = way == "steps per weight"
    optimizer = CountingAdam(1e-3) if counts else keras.optimizers.Adam(1e-3)
    model = compiled(optimizer)
    model.set_weights(trained.get_weights())
    before = trained.optimizer
    for name in ("_momentums", "_velocities"):
        for new, old in zip(getattr(optimizer, name), getattr(before, name), strict=True):
            new.assign(old)
    optimizer.iterations.assign(before.iterations)
    found = kerasrestart.score_filters(model, criterion="random", seed=seed)
    chosen = kerasrestart.select_filters(found, fraction=0.1)
    masks = {}
    for name, filters in chosen.items():
        kernel = model.get_layer(name).kernel
        masks[name] = np.isin(np.arange(kernel.shape[-1]), filters)
    if counts:
        for variable, count in zip(model.trainable_variables, optimizer.counts, strict=True):
            count.assign(np.full(count.shape, int(before.iterations)))
            name, kind = variable.path.split("/")[-2:]
            if name in masks and kind == "kernel":
                count.assign(np.where(masks[name], 0, count))
    kerasrestart.restart_filters(
        model,
        chosen,
        initializer="he_uniform",
        outgoing=outgoing,
        second_moment="survivors" if way == "survivors" else "zero",
        seed=seed,
    )
    kernels = {name: model.get_layer(name).kernel for name in chosen}
    ratios = np.zeros((len(chosen), FIRST))
    for step in range(FIRST):
        old = {name: kernel.numpy() for name, kernel in kernels.items()}
        model.train_on_batch(*batches[step])
        for row, (name, kernel) in enumerate(kernels.items()):
            moved = np.abs(kernel.numpy() - old[name])
            new, others = moved[..., masks[name]], moved[..., ~masks[name]]
            ratios[row, step] = new.mean() / others.mean()
    return ratios


def main(argv):
    if argv[1:]:
        raise app.UsageError(f"The command line must have flags only. Received: {argv[1:]}")
    values = flags.FLAGS
    keras.utils.set_random_seed(0)
    split = draw_shapes(IMAGES, 0)
    x, y = split.images.astype("float32") / 255 - 0.5, split.labels
    trained = compiled(keras.optimizers.Adam(1e-3))
    epochs = values.steps * BATCH / IMAGES
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(IMAGES, seed=0).repeat().batch(BATCH)
    trained.fit(data, steps_per_epoch=values.steps, verbose=0)
    print(f"trained {values.steps} steps of {BATCH} images, {epochs:.0f} epochs", flush=True)
    batches = list(data.take(FIRST).as_numpy_iterator())
    print(f"| outgoing | second moments | {' | '.join(map(str, range(1, FIRST + 1)))} |")
    print("|" + " --- |" * (FIRST + 2))
    for outgoing in ("keep", "zero"):
        for way in WAYS:
            found = [
                first_steps(trained, way, outgoing, seed, batches)
                for seed in range(values.restarts)
            ]
            rows = np.concatenate(found)
            medians = [statistics.median(column) for column in rows.T]
            cells = " | ".join(f"{value:.2f}" for value in medians)
            print(f"| {outgoing} | {way} | {cells} |", flush=True)


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 400, "Training steps before the restart.", lower_bound=1)
    flags.DEFINE_integer("restarts", 5, "Restarts, each of other filters.", lower_bound=1)
    app.run(main)
