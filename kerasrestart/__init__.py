"""Partial restart for Keras: finds useless filters, re-initialises only those and trains on.

Public names are loaded when they are first used, so that the command line can check its flags
without importing TensorFlow.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasrestart.diagnosis.diagnose import diagnose
    from kerasrestart.diagnosis.plasticity_monitor import PlasticityMonitor
    from kerasrestart.network.describe import describe
    from kerasrestart.restart.callback import PartialRestart
    from kerasrestart.restart.controller import RestartController
    from kerasrestart.restart.every_steps import EverySteps
    from kerasrestart.restart.observer import RestartObserver
    from kerasrestart.restart.remedies import (
        ResetLayer,
        ResetModel,
        ResetOptimizer,
        ShrinkAndPerturb,
        reset_layer,
        reset_model,
        reset_optimizer,
        shrink_and_perturb,
    )
    from kerasrestart.restart.reset import Reset
    from kerasrestart.restart.restart_backup import RestartBackup
    from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
    from kerasrestart.restart.select_filters import select_filters
    from kerasrestart.restart.surgery import restart_filters
    from kerasrestart.restart.tensorboard import RestartTensorBoard
    from kerasrestart.restart.when import EveryEpochs, OnPlateau, When
    from kerasrestart.scoring.reader_input_means import reader_input_means
    from kerasrestart.scoring.score_filters import score_filters
    from kerasrestart.scoring.scorer import Scorer
    from kerasrestart.scoring.scoring import Scoring
    from kerasrestart.scoring.train_step import RestartModel

__version__ = "0.1.0"

_HOMES = {
    "BelowMean": "kerasrestart.restart.select",
    "EveryEpochs": "kerasrestart.restart.when",
    "EverySteps": "kerasrestart.restart.every_steps",
    "Fraction": "kerasrestart.restart.select",
    "GlobalFraction": "kerasrestart.restart.select",
    "OnPlateau": "kerasrestart.restart.when",
    "PartialRestart": "kerasrestart.restart.callback",
    "PlasticityMonitor": "kerasrestart.diagnosis.plasticity_monitor",
    "Reset": "kerasrestart.restart.reset",
    "ResetLayer": "kerasrestart.restart.remedies",
    "ResetModel": "kerasrestart.restart.remedies",
    "ResetOptimizer": "kerasrestart.restart.remedies",
    "RestartController": "kerasrestart.restart.controller",
    "RestartBackup": "kerasrestart.restart.restart_backup",
    "RestartModel": "kerasrestart.scoring.train_step",
    "RestartObserver": "kerasrestart.restart.observer",
    "RestartTensorBoard": "kerasrestart.restart.tensorboard",
    "Scorer": "kerasrestart.scoring.scorer",
    "Scoring": "kerasrestart.scoring.scoring",
    "ShrinkAndPerturb": "kerasrestart.restart.remedies",
    "When": "kerasrestart.restart.when",
    "describe": "kerasrestart.network.describe",
    "diagnose": "kerasrestart.diagnosis.diagnose",
    "reader_input_means": "kerasrestart.scoring.reader_input_means",
    "reset_layer": "kerasrestart.restart.remedies",
    "reset_model": "kerasrestart.restart.remedies",
    "reset_optimizer": "kerasrestart.restart.remedies",
    "restart_filters": "kerasrestart.restart.surgery",
    "score_filters": "kerasrestart.scoring.score_filters",
    "select_filters": "kerasrestart.restart.select_filters",
    "shrink_and_perturb": "kerasrestart.restart.remedies",
}

__all__ = [
    "BelowMean",
    "EveryEpochs",
    "EverySteps",
    "Fraction",
    "GlobalFraction",
    "OnPlateau",
    "PartialRestart",
    "PlasticityMonitor",
    "Reset",
    "ResetLayer",
    "ResetModel",
    "ResetOptimizer",
    "RestartBackup",
    "RestartController",
    "RestartModel",
    "RestartObserver",
    "RestartTensorBoard",
    "Scorer",
    "Scoring",
    "ShrinkAndPerturb",
    "When",
    "describe",
    "diagnose",
    "experiments",
    "models",
    "reader_input_means",
    "reset_layer",
    "reset_model",
    "reset_optimizer",
    "restart_filters",
    "score_filters",
    "select_filters",
    "shrink_and_perturb",
]


def __getattr__(name: str) -> Any:
    packages = ("experiments", "models")
    if name not in packages and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import(_HOMES.get(name, f"{__name__}.{name}"))
    return module if name in packages else getattr(module, name)


def _import(name: str) -> Any:
    from kerasrestart.network.keras_backend import check_keras

    try:
        module = importlib.import_module(name)
    except Exception:
        check_keras()  # says so in one line if the reason is Keras's backend or settings
        raise
    if "keras" in sys.modules:
        check_keras()
    return module


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
