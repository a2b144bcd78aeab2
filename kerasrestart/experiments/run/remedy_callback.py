"""What a run does at each restart beside restarting filters: `--remedy`."""

from __future__ import annotations

import keras

from kerasrestart.experiments.settings import RunSettings
from kerasrestart.restart.callback import PartialRestart
from kerasrestart.restart.initializers import derive_seed
from kerasrestart.restart.remedies import (
    Remedy,
    ResetLayer,
    ResetModel,
    ResetOptimizer,
    ShrinkAndPerturb,
)


class RemedyCallback(keras.callbacks.Callback):
    """Applies the remedy that settings name after each restart of filters.

    So a remedy can be compared alone, with `--init=none`, and on top of restarted filters. It has
    no state: the last restart tells whether the epoch that begins is the first of a round.

    Example:
    ```python
    settings = RunSettings(init="none", remedy="head_reset")
    model.fit(x, y, callbacks=[restart, RemedyCallback(restart, settings)])
    ```

    Args:
        restart: The run's callback, which comes before this one in the list.
        settings: The run's settings; their `remedy` is not `"none"`.
    """

    def __init__(self, restart: PartialRestart, settings: RunSettings):
        super().__init__()
        self._restart, self._settings = restart, settings

    def on_epoch_begin(self, epoch, logs=None):
        """Applies the remedy if filters were restarted at the begin of this epoch."""
        events = self._restart.events
        if events and events[-1].epoch == epoch - 1:
            # The filters' own draws have the seed without the 1.
            seed = derive_seed(derive_seed(self._settings.seed, len(events)), 1)
            remedy_of(self._settings, self.model).apply(self.model, seed)


def remedy_of(settings: RunSettings, model: keras.Model) -> Remedy:
    """The remedy that the settings name, which are not `"none"`."""
    if settings.remedy == "head_reset":
        head = [layer for layer in model.layers if layer.trainable_variables][-1]
        return ResetLayer(head.path)
    if settings.remedy == "shrink_and_perturb":
        return ShrinkAndPerturb(settings.shrink, settings.perturb)
    return {"full_reset": ResetModel, "optimizer_reset": ResetOptimizer}[settings.remedy]()
