"""What a run does at each restart beside restarting filters: `--remedy`."""

from __future__ import annotations

import keras

from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.network.output_layers import output_layers
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
    remedy = remedy_of(settings, model)
    model.fit(x, y, callbacks=[restart, RemedyCallback(restart, remedy, settings.seed)])
    ```

    Args:
        restart: The run's callback, which comes before this one in the list.
        remedy: What `remedy_of` returns for the run's settings.
        seed: The run's seed.
    """

    def __init__(self, restart: PartialRestart, remedy: Remedy, seed: int):
        super().__init__()
        self._restart, self._remedy, self._seed = restart, remedy, seed

    def on_epoch_begin(self, epoch, logs=None):
        """Applies the remedy if filters were restarted at the start of this epoch."""
        events = self._restart.events
        if events and events[-1].epoch == epoch - 1:
            # The filters' own draws have the seed without the 1.
            seed = derive_seed(derive_seed(self._seed, len(events)), 1)
            self._remedy.apply(self.model, seed)


def remedy_of(settings: RunSettings, model: keras.Model) -> Remedy | None:
    """The remedy that settings name for a model; None where they name none.

    Raises:
        SettingError: It cannot be applied to this model.
    """
    if settings.remedy == "none":
        return None
    try:
        remedy = _remedy(settings, model)
        remedy.check(model)
    except ValueError as error:
        raise SettingError(f"--remedy={settings.remedy} cannot be applied: {error}") from error
    return remedy


def _remedy(settings: RunSettings, model: keras.Model) -> Remedy:
    if settings.remedy == "head_reset":
        heads = tuple(layer.path for layer in output_layers(model))
        if not heads:
            raise ValueError(
                f"model {model.name!r} must have a layer with weights that makes its output and "
                "trains. Received: none"
            )
        return ResetLayer(heads)
    if settings.remedy == "shrink_and_perturb":
        return ShrinkAndPerturb(settings.shrink, settings.perturb)
    return {"full_reset": ResetModel, "optimizer_reset": ResetOptimizer}[settings.remedy]()
