"""Where a run begins: at the beginning, where it was killed, or at another run's baseline."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasrestart.experiments.data import ImageData
from kerasrestart.experiments.records.run_folder import BASELINE, RunFolder, check_folder
from kerasrestart.experiments.run.state_file import StateError, read_last_good, read_state
from kerasrestart.experiments.settings import AFTER_BASELINE, IGNORED_ON_RESUME, RunSettings


@dataclasses.dataclass(frozen=True)
class StartingPoint:
    """Where a run begins.

    Attributes:
        epoch: Its first epoch.
        state: Arrays and content of the state to take up, as `restore_run` gets them; None at the
            beginning.
        source: The folder with the history of the epochs before; None: the run's own.
        done: Whether there is no epoch left to train, only the run's end.
        seconds: What the run has taken so far.
        rollbacks: Where it was rolled back, as `RunCheckpoint.rollbacks` has it.
        told: What a user is told of it, as the end of a line.
    """

    epoch: int = 0
    state: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None
    source: pathlib.Path | None = None
    done: bool = False
    seconds: float = 0.0
    rollbacks: tuple[dict[str, int], ...] = ()
    told: str = ""


def identity_of(
    settings: RunSettings, images: ImageData, weights: str | None = None, replicas: int = 1
) -> dict[str, Any]:
    """What a run and the one that goes on with it must have in common.

    Args:
        settings: Its settings.
        images: Its data.
        weights: SHA-256 of the file of weights that it begins with. Defaults to None: of none.
        replicas: How many replicas each batch is split over. Defaults to 1.
    """
    return {
        "settings": settings.to_dict(),
        "data": images.fingerprint,
        "weights": weights,
        "replicas": replicas,
    }


def starting_point(
    folder: RunFolder, settings: RunSettings, identity: Mapping[str, Any]
) -> StartingPoint:
    """Looks where a run is to begin; writes nothing.

    Args:
        folder: Its folder.
        settings: Its settings.
        identity: What `identity_of` tells of it.

    Raises:
        ValueError: The folder's run, or that of the baseline, had other settings, data or weights;
            there is no baseline; or a state is damaged, and so is the one before it.
    """
    if (found := read_last_good(folder.state)) is not None:
        arrays, content, wrong = found
        _check_same(settings, identity, content["identity"], frozenset(), folder.path)
        note = f" ({wrong} Took the state before it.)" if wrong else ""
        epoch, done = content["next_epoch"], content["done"]
        told = f", going on behind epoch {epoch}{note}" if epoch else note
        return StartingPoint(
            epoch,
            (arrays, content),
            done=done,
            seconds=content["seconds"],
            rollbacks=tuple(content["rollbacks"]),
            told=told,
        )
    if settings.baseline is None:
        return StartingPoint()
    check_folder(folder.path, resume=True, baseline=settings.baseline)
    source = pathlib.Path(settings.baseline)
    arrays, content = read_state(source / BASELINE)
    _check_same(settings, identity, content["identity"], AFTER_BASELINE, source)
    epoch = content["next_epoch"]
    return StartingPoint(
        epoch,
        (arrays, content),
        source=source,
        rollbacks=tuple(content["rollbacks"]),
        told=f", going on behind epoch {epoch} of the baseline {source}",
    )


def _check_same(
    settings: RunSettings,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    free: frozenset[str],
    folder: pathlib.Path,
) -> None:
    try:
        differ = settings.differences(theirs["settings"], free | IGNORED_ON_RESUME)
        if mine["data"] != theirs["data"]:
            differ.append("the images are others")
        if mine["weights"] != theirs["weights"]:
            differ.append("the weights that it begins with are others")
        if mine["replicas"] != theirs["replicas"]:
            differ.append(f"replicas were {theirs['replicas']}, are {mine['replicas']}")
    except (KeyError, AttributeError, TypeError) as error:
        raise StateError(f"The state in {folder} lacks a part of a run: {error}") from error
    if differ:
        raise ValueError(
            f"The run in {folder} was made with other settings, so this one cannot go on with it: "
            f"{'; '.join(differ)}. Pass the same, or another --run_name or --logdir."
        )
