"""Opens a folder for records of TensorBoard."""

from __future__ import annotations

import os
import re

import tensorflow as tf

from kerasrestart.network.text import one_line


def summary_writer(log_dir: str | os.PathLike) -> tf.summary.SummaryWriter:
    """Opens a writer.

    Args:
        log_dir: The folder; it is made where it is missing.

    Raises:
        ValueError: It cannot be written to.
    """
    try:
        return tf.summary.create_file_writer(os.fspath(log_dir))
    except tf.errors.OpError as error:
        # Without the names of TensorFlow's operations around it.
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", one_line(error.message))
        raise ValueError(
            "log_dir must be a folder that can be written to. Received: "
            f"{os.fspath(log_dir)!r} ({reason})"
        ) from error
