"""Your own images as files, in a folder for each class."""

from __future__ import annotations

import collections
import os
import pathlib

import numpy as np

from kerasrestart.experiments.data.arrays import SPLITS, assemble, plain_name
from kerasrestart.experiments.data.dataset import ImageData, Split
from kerasrestart.experiments.data.errors import DataError, check_integer
from kerasrestart.experiments.paths import user_path
from kerasrestart.network.text import listed

VALIDATION = ("validation", "val", "valid")  # names of the folder, the first that is there
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_SIGNATURES = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG")  # the first bytes of such files
_UNREAD = (  # images that TensorFlow does not decode
    *(".apng", ".avif", ".dcm", ".dib", ".dng", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jfif"),
    *(".jp2", ".jpe", ".jxl", ".nef", ".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".psd", ".raw"),
    *(".svg", ".tga", ".tif", ".tiff", ".webp"),
)


def load_folder(path: str | os.PathLike, image_size: int) -> ImageData:
    """Loads images through `keras.utils.image_dataset_from_directory`.

    Example:
    ```python
    from kerasrestart.experiments.data.folders import load_folder

    data = load_folder("birds", image_size=64)  # birds/crow/1.png, birds/heron/2.jpg, ...
    ```

    Args:
        path: A folder with a folder of images for each class; or with `train/`, and `test/` or
            `validation/` (also `val/` or `valid/`) or both, each such a folder. Splits that are
            missing are taken from the training images, a tenth each.
        image_size: Height and width to which all images are resized (bilinear).

    Returns:
        The data set, with a single channel where all images are grey.

    Raises:
        DataError: There are no such folders, their classes differ, an image is in no folder of a
            class, or an image cannot be read.
    """
    check_integer("image_size", image_size, 1)
    root = user_path(path, "dataset")
    folders = _split_folders(root)
    classes = _classes(folders["train"])
    for folder in folders.values():
        if (others := _classes(folder)) != classes:
            raise DataError(
                f"{folder} must have the classes of {folders['train']}: {', '.join(classes)}. "
                f"Received: {', '.join(others)}"
            )
    splits = {name: _read(folder, classes, image_size) for name, folder in folders.items()}
    if all(_is_grey(split.images) for split in splits.values()):
        splits = {name: Split(s.images[..., :1].copy(), s.labels) for name, s in splits.items()}
    return assemble(plain_name(root.resolve().name), classes, splits)


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    if not root.is_dir():
        raise DataError(f"--dataset=folder:PATH must name a folder. Received: {str(root)!r}")
    found = {name: root / name for name in SPLITS if (root / name).is_dir()}
    for name in VALIDATION:
        if "validation" not in found and (root / name).is_dir():
            found["validation"] = root / name
    if "train" not in found:
        return {"train": root}
    if len(found) == 1 and _subfolders(found["train"]):
        raise DataError(
            f"{root} must have 'test' or 'validation' beside 'train', or be a folder of classes: "
            f"--dataset=folder:{found['train']} takes these images and a tenth of them for each of "
            f"the others. Received: {', '.join(_subfolders(root))}"
        )
    return found if len(found) > 1 else {"train": root}


def _subfolders(folder: pathlib.Path) -> tuple[str, ...]:
    """Names of the folders in a folder, without hidden ones such as `.ipynb_checkpoints`."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return tuple(sorted(entry.name for entry in entries if entry.is_dir()))


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
    names = _subfolders(folder)
    _refuse_unread_images(folder, names)
    if len(names) < 2:
        raise DataError(
            f"{folder} must have a folder of images for each class, two or more. Received: "
            f"{', '.join(names) or 'no folder'}"
        )
    for name in names:
        files = (folder / name).rglob("*")
        if not any(file.suffix.lower() in SUFFIXES for file in files):
            raise DataError(
                f"{folder / name} must have images ({', '.join(SUFFIXES)}). Received: none"
            )
    return names


def _refuse_unread_images(folder: pathlib.Path, classes: tuple[str, ...]) -> None:
    """Refuses images that would be left out: of another type, or in no folder of a class.

    Other files are left out, such as `Thumbs.db`.
    """
    files = sorted(file for name in classes for file in (folder / name).rglob("[!.]*"))
    if unread := [file for file in files if file.suffix.lower() in _UNREAD]:
        counts = collections.Counter(file.suffix.lower() for file in unread)
        received = listed([f"{count} of {suffix}" for suffix, count in counts.most_common()])
        raise DataError(
            f"{folder} must have images of the types {', '.join(SUFFIXES)} only: convert the other "
            f"files or move them elsewhere. Received: {received}, such as {unread[0]}"
        )
    entries = sorted(folder.glob("[!.]*")) if classes else []
    loose = [file for file in entries if file.suffix.lower() in SUFFIXES + _UNREAD]
    if loose := [file for file in loose if file.is_file()]:
        raise DataError(
            f"{folder} must have its images in the folders of their classes: move the others there "
            f"or elsewhere. Received: {len(loose)} beside these folders, such as {loose[0].name}"
        )


def _read(folder: pathlib.Path, classes: tuple[str, ...], side: int) -> Split:
    import keras
    import tensorflow as tf

    images = keras.utils.image_dataset_from_directory(
        str(folder),
        label_mode="int",
        class_names=list(classes),
        color_mode="rgb",
        batch_size=None,
        image_size=(side, side),
        shuffle=False,
        verbose=False,
        data_format="channels_last",
    )
    files = images.file_paths
    pixels, labels = np.empty((len(files), side, side, 3), np.uint8), np.empty(len(files), np.int32)
    count = 0
    try:
        for image, label in images.as_numpy_iterator():
            pixels[count], labels[count] = np.clip(np.round(image), 0, 255), label
            count += 1
    except tf.errors.OpError as error:
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        raise DataError(_not_decoded(pathlib.Path(files[count]))) from error
    return Split(pixels, labels)


def _not_decoded(file: pathlib.Path) -> str:
    """Says in one line what is wrong with a file; TensorFlow's message is on its operations."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}."
    known = any(content.startswith(signature) for signature in _SIGNATURES)
    kind = "of a damaged image" if known else "of another type of file"
    return (
        f"{file} cannot be decoded: it must be replaced by a BMP, GIF, JPEG or PNG image, or "
        f"removed. Received: {len(content)} bytes{f' {kind}' if content else ''}"
    )


def _is_grey(images: np.ndarray) -> bool:
    return bool((images[..., :1] == images[..., 1:]).all())
