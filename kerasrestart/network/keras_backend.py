"""Whether Keras can be loaded, and runs on TensorFlow."""

from __future__ import annotations

import os

from kerasrestart.network.text import one_line


def check_keras() -> None:
    """Imports Keras, and checks its backend.

    Raises:
        ImportError: Keras cannot be loaded, or its backend is not TensorFlow. The message is one
            line that names the setting to change.
    """
    named = os.environ.get("KERAS_BACKEND")
    source = "KERAS_BACKEND" if named else "`backend` in Keras's keras.json"
    try:
        import keras

        backend = keras.config.backend()
    except Exception as error:  # of a backend that is not installed, or of any part of keras.json
        if named and named != "tensorflow":
            backend = named
        else:
            reason = one_line(error)
            raise ImportError(
                "Keras cannot be loaded: its keras.json (in $KERAS_HOME or ~/.keras) must be valid "
                f"and name an installed backend. Received: {type(error).__name__}: {reason}"
            ) from error
    if backend != "tensorflow":
        raise ImportError(
            f"kerasrestart needs Keras on TensorFlow: {source} must be 'tensorflow'. "
            f"Received: {backend!r}"
        )
