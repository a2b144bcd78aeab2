"""The batches that a run trains, validates and tests on."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kerasrestart.experiments import data
from kerasrestart.experiments.data.class_order import ClassOrderCallback
from kerasrestart.experiments.models.alexnet_weights import IMAGENET_MEAN, IMAGENET_STD
from kerasrestart.experiments.run import strategies
from kerasrestart.experiments.run.build import regime_of
from kerasrestart.experiments.settings import RunSettings
from kerasrestart.scoring.replicas import split_batches


class RunBatches:
    """Makes the batches of a run from its images.

    Args:
        settings: The settings of the run.
        images: Its data.
        strategy: What its batches are split by.
        has_pretrained_weights: Whether images are normalised as for ImageNet.

    Attributes:
        class_order: The callback that keeps the classes of validation and test those of training;
            None where no epoch changes them.
        training_steps: Batches of an epoch.
    """

    def __init__(
        self,
        settings: RunSettings,
        images: data.ImageData,
        strategy: tf.distribute.Strategy,
        *,
        has_pretrained_weights: bool,
    ):
        self._settings, self._images, self._strategy = settings, images, strategy
        self._regime = regime_of(settings, images)
        self.class_order = None if self._regime is None else ClassOrderCallback(self._regime)
        self.training_steps = data.steps_per_epoch(images.train, settings.batch_size)
        statistics = (images.mean, images.std)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if has_pretrained_weights else statistics
        self._preprocessing: dict[str, Any] = {
            "mean": mean,
            "std": std,
            "image_size": settings.image_size,
        }

    def training(self, first_epoch: int) -> Any:
        """The batches of all epochs from `first_epoch` on."""
        batches = data.train_batches(
            self._images.train,
            self._settings.batch_size,
            seed=self._settings.seed,
            augment=self._settings.augment,
            first_epoch=first_epoch,
            regime=self._regime,
            **self._preprocessing,
        )
        return split_batches(batches, self._strategy)

    def evaluation(self, split: data.Split) -> tuple[Any, int | None]:
        """The batches of a validation or test, and their number; None where it has no meaning."""
        if self._regime is not None and not self._regime.generalizes:
            return None, None
        batch_size = _eval_batch_size(self._settings, split, self._strategy)
        batches = data.evaluation_batches(
            split,
            batch_size,
            class_order=None if self.class_order is None else self.class_order.class_order,
            **self._preprocessing,
        )
        batches = strategies.evaluation_input(batches, self._strategy)
        return batches, data.steps_per_epoch(split, batch_size)


def check_run_batches(
    settings: RunSettings, images: data.ImageData, strategy: tf.distribute.Strategy
) -> None:
    """Checks that all batches of a run can be split over the replicas.

    Raises:
        ValueError: As `strategies.check_batches`.
    """
    strategies.check_batches(strategy, len(images.train), settings.batch_size)
    for split in (images.validation, images.test):
        size = _eval_batch_size(settings, split, strategy)
        strategies.check_batches(strategy, len(split), size)


def _eval_batch_size(
    settings: RunSettings, split: data.Split, strategy: tf.distribute.Strategy
) -> int:
    # Several batches are held at once: only images of their stored size are small enough for 500.
    size = settings.batch_size if settings.image_size else max(settings.batch_size, 500)
    replicas = strategy.num_replicas_in_sync
    return max(min(size, len(split)) // replicas, 1) * replicas
