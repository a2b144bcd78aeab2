"""One callback on your own model: restarts, and a control that trains as long without them.

python examples/plain_model.py
"""

from __future__ import annotations

import argparse

import keras
from keras import layers

import kerasrestart
from kerasrestart.experiments import data


def build(classes: int) -> keras.Model:
    """A plain small convolutional network."""
    keras.utils.set_random_seed(0)  # both runs begin with the same weights
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(32, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(classes, name="logits"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    """Trains twice; returns the best validation accuracy of each round, by run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=4000, help="images to draw")
    parser.add_argument("--round_epochs", type=int, default=4, help="epochs of a round")
    chosen = parser.parse_args(arguments)

    images = data.load("shapes", shapes_examples=chosen.examples)
    accuracies = {}
    for name, control in (("uniform", None), ("none", "none")):
        model = build(len(images.classes))
        restart = kerasrestart.PartialRestart(
            "uniform",
            when=kerasrestart.EveryEpochs(chosen.round_epochs),
            control=control,
            max_restarts=2,
            stop_on_repeat=False,  # otherwise the run may end before the control does
        )
        model.fit(
            images.train.images,
            images.train.labels,
            batch_size=128,
            epochs=3 * chosen.round_epochs,
            validation_data=(images.validation.images, images.validation.labels),
            verbose=0,
            callbacks=[restart],
        )
        accuracies[name] = [r.best_metrics["val_accuracy"] for r in restart.rounds]
        print(name, [f"{accuracy:.3f}" for accuracy in accuracies[name]])
        print(restart.summary())
    return accuracies


if __name__ == "__main__":
    main()
