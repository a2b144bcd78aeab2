"""The numbers of `diagnose` as curves while a model trains."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasrestart.diagnosis.diagnosis import Diagnosis
from kerasrestart.diagnosis.diagnosis_pass import DiagnosisPass
from kerasrestart.network.arguments import check_whole, checked_layers, checked_path
from kerasrestart.restart.observer import RestartObserver
from kerasrestart.restart.summary_writer import summary_writer


class PlasticityMonitor(keras.callbacks.Callback, RestartObserver):
    """Diagnoses a model every n epochs while it trains.

    Example:
    ```python
    monitor = kerasrestart.PlasticityMonitor(x[:1000], y[:1000], every=5, log_dir="logs/run")
    model.fit(x, y, epochs=50, callbacks=[monitor])
    monitor.history[-1]["layers"]["conv3"]["dead"]  # a count
    monitor.seconds  # what it cost
    ```

    It can also be an observer: `PartialRestart(observers=[monitor])`. Then it sees each epoch
    before the restart that the epoch leads to.

    TensorBoard gets the scalars `plasticity/<number>/<layer>` in the folder `plasticity` inside
    `log_dir`, with epochs counted from 0 as steps. The numbers are those of `LayerDiagnosis`:
    `dead`, `dormant`, `useless` and `duplicate` as counts, `effective_rank`, `weight_norm`,
    `gradient_norm` and `lowest_score`.

    Args:
        x: Inputs to diagnose by, as in `kerasrestart.diagnose`: a part of the data, such as a
            thousand examples, is cheap.
        y: Targets, as there. Defaults to None.
        every: The first epoch and each n-th after it are diagnosed. Defaults to 1.
        log_dir: Folder for TensorBoard. Defaults to None: no records.
        layers: As in `kerasrestart.diagnose`. Defaults to `".*"`.
        batch_size: As there. Defaults to 128.

    Attributes:
        history: For each diagnosed epoch `{"epoch": ..., "seconds": ..., "layers": {layer: {name:
            number}}}`, of this and earlier calls of `fit`.
        seconds: Time spent in all, the first trace included.
        last: The last `Diagnosis`, or None.

    Raises:
        ValueError: An argument is out of range; at the start of `fit`: `log_dir` cannot be written
            to; or, at the first epoch, as `diagnose`.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        every: int = 1,
        log_dir: str | os.PathLike | None = None,
        layers: str | Sequence[str] | None = ".*",
        batch_size: int = 128,
    ):
        super().__init__()
        check_whole("every", every, 1)
        self._data = x, y
        self._options: dict[str, Any] = {"layers": layers, "batch_size": batch_size}
        self.every = every
        if log_dir is not None:
            checked_path("log_dir", log_dir, "that of a folder")
        checked_layers(layers)
        check_whole("batch_size", batch_size, 1)
        self.log_dir = log_dir
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.last: Diagnosis | None = None
        self._pass: DiagnosisPass | None = None
        self._writer: tf.summary.SummaryWriter | None = None

    def on_train_begin(self, logs=None):
        """Opens the file, and forgets the last trace: the model may have been compiled again."""
        if logs and not isinstance(logs, dict):
            self.set_model(logs.model)  # as an observer, which gets the callback
        self._pass = None
        if self.log_dir is not None:
            self._writer = summary_writer(pathlib.Path(self.log_dir) / "plasticity")

    def on_epoch_end(self, epoch, logs=None):
        """Diagnoses the model, where the epoch is one of those to diagnose."""
        del logs
        if epoch % self.every:
            return
        began = time.perf_counter()
        if self._pass is None:
            self._pass = DiagnosisPass(self.model, *self._data, **self._options)
        self.last = self._pass.run()
        layers = {name: layer.scalars() for name, layer in self.last.layers.items()}
        if self._writer is not None:
            self._write(self._writer, layers, epoch)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        self.history.append({"epoch": epoch, "seconds": seconds, "layers": layers})

    def on_train_end(self, logs=None):
        """Closes the file; another `fit` opens another."""
        del logs
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._pass = None

    @staticmethod
    def _write(
        writer: tf.summary.SummaryWriter, layers: dict[str, dict[str, float]], epoch: int
    ) -> None:
        # The stock callback with an integer update_freq leaves recording off between batches.
        with writer.as_default(), tf.summary.record_if(True):
            for name, numbers in layers.items():
                for number, value in numbers.items():
                    tf.summary.scalar(f"plasticity/{number}/{name}", value, epoch)
        writer.flush()
