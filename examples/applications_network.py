"""A network of `keras.applications`, as it is: MobileNetV2 on small images, from scratch.

python examples/applications_network.py
"""

from __future__ import annotations

import argparse

import keras

import kerasrestart
from kerasrestart.experiments import data


def main(arguments: list[str] | None = None) -> kerasrestart.PartialRestart:
    """Trains with restarts; returns the callback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=4000, help="images to draw")
    parser.add_argument("--round_epochs", type=int, default=3, help="epochs of a round")
    parser.add_argument("--layers", default=".*project", help="which layers: a regular expression")
    chosen = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    images = data.load("shapes", shapes_examples=chosen.examples)
    model = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3),
        alpha=0.35,
        weights=None,
        classes=len(images.classes),
        classifier_activation=None,
    )
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Which layers there are, and which of them can be restarted.
    print(kerasrestart.describe(model))
    restart = kerasrestart.PartialRestart(
        "he_uniform",
        layers=chosen.layers,
        when=kerasrestart.EveryEpochs(chosen.round_epochs, monitor="loss"),
        max_restarts=2,
    )
    model.fit(
        keras.applications.mobilenet_v2.preprocess_input(images.train.images.astype("float32")),
        images.train.labels,
        batch_size=64,
        epochs=2 * chosen.round_epochs,
        verbose=2,
        callbacks=[restart],
    )
    return restart


if __name__ == "__main__":
    main()
