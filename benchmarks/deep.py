"""How long the map, a restart and the scores of networks of many convolutions take.

    python -m benchmarks.deep [--convolutions=500] [--repeats=3]

One is a chain of convolutions with ReLUs, the other a residual network with batch norms; images
have 16x16 pixels. Each time they are built again, so that nothing of them is known. The scores are
those of one batch of 32 images; nearly all of their time goes into tracing and optimizing the
graph, as in Keras's first training step, which is timed too. Seven minutes on two cores.
"""

from __future__ import annotations

import keras
import numpy as np
from absl import app, flags
from keras import layers

import kerasrestart
from benchmarks.timing import Cost, Row, report

SIDE, BATCH, FILTERS = 16, 32, 8
# Seconds for 500 convolutions.
TARGETS = {"describe": 2, "restart_filters": 2, "score_filters": 15, "first training step": None}


def define_flags():
    flags.DEFINE_integer("convolutions", 500, "How many convolutions.", lower_bound=3)
    flags.DEFINE_integer("repeats", 3, "How often each is timed.", lower_bound=1)
    flags.DEFINE_string("output", "tf_logs/deep.md", "Where the table is written.")


def main(argv):
    if argv[1:]:
        raise app.UsageError(f"The command line must have flags only. Received: {argv[1:]}")
    values = flags.FLAGS
    rows = []
    for name, build in NETWORKS.items():
        costs = [deep_costs(build(values.convolutions)) for _ in range(values.repeats)]
        label = f"{name}, {values.convolutions} convolutions"
        for what, seconds in TARGETS.items():
            target = f"{seconds} or less" if seconds and values.convolutions == 500 else ""
            of_each = [of_repeat[what] for of_repeat in costs]
            rows.append(Row(f"{what}, CPU time", label, [c.cpu for c in of_each], "s", target))
            rows.append(Row(f"{what}, wall time", label, [c.wall for c in of_each], "s"))
    report("python -m benchmarks.deep", rows, [], values.output)


def chain(convolutions: int) -> keras.Model:
    """Convolutions with ReLUs, one after the other; compiled.

    Args:
        convolutions: How many.
    """
    image = x = keras.Input((SIDE, SIDE, 3))
    for _ in range(convolutions):
        x = layers.Conv2D(FILTERS, 3, padding="same", activation="relu")(x)
    return _with_head(image, x)


def residual(convolutions: int) -> keras.Model:
    """Blocks of two convolutions with batch norms and a sum, after a first one; compiled.

    Args:
        convolutions: How many in all.
    """

    def convolved(x):
        x = layers.Conv2D(FILTERS, 3, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    image = keras.Input((SIDE, SIDE, 3))
    x = layers.ReLU()(convolved(image))
    for left in range(convolutions - 1, 0, -2):
        y = layers.ReLU()(convolved(x))
        x = layers.ReLU()(layers.Add()([x, convolved(y)])) if left > 1 else y
    return _with_head(image, x)


NETWORKS = {"chain": chain, "residual": residual}


def _with_head(image, x) -> keras.Model:
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def deep_costs(model: keras.Model) -> dict[str, Cost]:
    """Costs of each of `TARGETS` on a network that is new."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH, SIDE, SIDE, 3)).astype("float32")
    y = generator.integers(0, 10, BATCH)
    chosen = {layer.name: [0] for layer in model.layers if isinstance(layer, layers.Conv2D)}
    calls = {
        "describe": lambda: kerasrestart.describe(model),
        "restart_filters": lambda: kerasrestart.restart_filters(model, chosen, seed=0),
        "score_filters": lambda: kerasrestart.score_filters(model, x, y),
        "first training step": lambda: model.train_on_batch(x, y),
    }
    costs = {}
    for what, call in calls.items():
        start = Cost.now()
        call()
        costs[what] = Cost.now() - start
    keras.utils.clear_session()
    return costs


if __name__ == "__main__":
    define_flags()
    app.run(main)
