"""Images of your own, in folders named by class, through `tensorflow_datasets`.

    python examples/own_images.py --folder=FOLDER

FOLDER/train/<class>/*.png and FOLDER/validation/<class>/*.png (or .jpg). Without --folder the
example writes a few images of its own.

A data set of Hugging Face comes into `fit` the same way: with the library `datasets`,
`load_dataset(...)["train"].to_tf_dataset(columns="image", label_cols="label", batch_size=64)` is a
`tf.data.Dataset` of batches (images, labels), which takes the place of `batches` below.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers

import kerasrestart
from kerasrestart.experiments import data

SIZE = 32


def write_images(folder: pathlib.Path, count: int) -> None:
    """Writes images of the built-in shapes as PNG files, in folders as `ImageFolder` reads them."""
    images = data.load("shapes", shapes_examples=count)
    for name, split in (("train", images.train), ("validation", images.validation)):
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = folder / name / images.classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())


def batches(builder: tfds.ImageFolder, split: str) -> tf.data.Dataset:
    """Batches of float32 images from 0 to 1, all of one size, and labels."""

    def prepare(image, label):
        return tf.image.resize(image, (SIZE, SIZE)) / 255, label

    images = builder.as_dataset(split=split, as_supervised=True, shuffle_files=False)
    if split == "train":
        images = images.shuffle(10_000, seed=0)
    return images.map(prepare).batch(64).prefetch(1)


def read_folders(folder: str) -> tfds.ImageFolder:
    """Finds the images; ends with one line where a split has none."""
    wrong = "--folder must have images in train/<class>/ and validation/<class>/, .png or .jpg"
    if not pathlib.Path(folder).expanduser().is_dir():
        raise SystemExit(f"error: {wrong}. Received: {folder!r}, not a folder")
    builder = tfds.ImageFolder(folder)
    for split in ("train", "validation"):
        if split not in builder.info.splits or not builder.info.splits[split].num_examples:
            raise SystemExit(f"error: {wrong}. Received: {folder!r}, without images in {split}/")
    return builder


def main(arguments: list[str] | None = None) -> kerasrestart.PartialRestart:
    """Trains with restarts on images in folders; returns the callback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where the images are")
    parser.add_argument("--examples", type=int, default=2000, help="images to write without it")
    parser.add_argument("--epochs", type=int, default=9, help="epochs, of which a round has three")
    chosen = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as own:
        if chosen.folder is None:
            write_images(pathlib.Path(own), chosen.examples)
        builder = read_folders(chosen.folder or own)
        classes = builder.info.features["label"].num_classes
        model = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 3)),
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
        restart = kerasrestart.PartialRestart(
            "xavier", when=kerasrestart.EveryEpochs(3, monitor="val_accuracy"), max_restarts=2
        )
        model.fit(
            batches(builder, "train"),
            validation_data=batches(builder, "validation"),
            epochs=chosen.epochs,
            verbose=2,
            callbacks=[restart],
        )
    return restart


if __name__ == "__main__":
    main()
