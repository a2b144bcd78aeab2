"""`RunResult`: what a run has written, for Python."""

from __future__ import annotations

import dataclasses
import functools
import io
import pathlib
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of `kerasrestart.experiments.run`.

    Example:
    ```python
    from kerasrestart import experiments
    from nets import tiny  # a function (input_shape, classes) of your own

    result = experiments.run(model=tiny, dataset=(x, y), epochs=20, max_restarts=1)
    print(result)  # the table
    result.table[-1]["test_accuracy"]
    result.model.predict(x)
    ```

    Attributes:
        path: The run's folder.
        record: Content of its `run.json`.
    """

    path: pathlib.Path
    record: Mapping[str, Any] = dataclasses.field(repr=False)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for the baseline and one for each restart; accuracies in 0..1."""
        return list(self.record["table"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The restarts: epoch, filters and scores by layer, metrics before and after."""
        return list(self.record["events"])

    @functools.cached_property
    def history(self) -> dict[str, tuple[float, ...]]:
        """Metrics and learning rate of each epoch, by name."""
        from kerasrestart.experiments.records.history import read_history

        return dict(read_history(self.path))

    @property
    def report(self) -> pathlib.Path:
        """The run as one HTML page."""
        return self.path / "report.html"

    @functools.cached_property
    def model(self) -> Any:
        """The model at its best epoch by the monitored metric, a plain Keras model.

        Raises:
            ValueError: Keras could not save it, and only its weights are there.
        """
        import keras

        from kerasrestart.experiments.records.run_folder import MODEL, WEIGHTS

        if not (self.path / MODEL).exists() and (self.path / WEIGHTS).exists():
            raise ValueError(
                "The class of the model has no get_config, so only its weights were saved: "
                f"model.load_weights('{self.path / WEIGHTS}') takes them."
            )
        return keras.saving.load_model(self.path / MODEL)

    def __str__(self):
        from kerasrestart.experiments.report.run_table import print_run_table

        text = io.StringIO()
        print_run_table(self.record, text)
        return text.getvalue().rstrip()
