"""Your own network on your own arrays, with a control: `experiments.run` and `experiments.study`.

    python examples/own_experiment.py --seeds=4

Each run of a study is a process that imports `network` from this file: so the calls are under
`if __name__ == "__main__":`.
"""

from __future__ import annotations

import argparse

import keras
from keras import layers

from kerasrestart import experiments
from kerasrestart.experiments import data


def network(input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A small network for any images, ending in logits."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(32, 3, activation="relu", name="conv2"),
            layers.GlobalAveragePooling2D(name="pool2"),
            layers.Dense(classes, name="logits"),
        ]
    )


def main(
    arguments: list[str] | None = None,
) -> tuple[experiments.RunResult, experiments.StudyResult | None]:
    """Makes one run, then a study of a few seeds; returns their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000, help="number of images")
    parser.add_argument("--round_epochs", type=int, default=3, help="epochs of a round")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the study; 0: no study")
    parser.add_argument("--logdir", default="tf_logs", help="where runs are written")
    chosen = parser.parse_args(arguments)

    images = data.load("shapes", shapes_examples=chosen.examples)
    x, y = images.train.images[:, ::2, ::2], images.train.labels
    common = {"dataset": (x, y), "round_epochs": chosen.round_epochs, "max_restarts": 1}
    result = experiments.run(
        model=network,
        init="he_uniform",
        trigger="epochs",
        stop_on_repeat=False,
        logdir=chosen.logdir,
        **common,
    )
    print(result.table[-1]["test_accuracy"])
    if not chosen.seeds:
        return result, None
    study = experiments.study(
        study_name="own_experiment",
        network=network,
        arms=["he_uniform", "random"],
        seeds=range(chosen.seeds),
        logdir=chosen.logdir,
        **common,
    )
    print(study)
    return result, study


if __name__ == "__main__":
    main()
