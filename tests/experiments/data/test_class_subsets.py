"""Tasks of class subsets."""

import numpy as np
import pytest

from kerasrestart.experiments.data.class_subsets import ClassSubsets
from kerasrestart.experiments.data.dataset import Split
from kerasrestart.experiments.data.errors import DataError
from kerasrestart.experiments.data.pipeline import train_batches

LABELS = np.arange(60, dtype=np.int32) % 10
SPLIT = Split(np.zeros((60, 2, 2, 3), np.uint8), LABELS)
REGIME = ClassSubsets(SPLIT, classes=10, epochs=3, seed=4)


def test_tasks_have_five_classes_and_one_in_turn():
    sizes = [len(REGIME.task_classes(3 * task)) for task in range(30)]
    assert sizes == [5, 1] * 15


def test_a_task_has_all_images_of_its_classes_and_keeps_their_labels():
    for epoch in range(0, 60, 3):
        found = REGIME.epoch_examples(epoch)
        classes = REGIME.task_classes(epoch)
        assert set(LABELS[found]) == set(classes)
        assert len(found) == 6 * len(classes)
        np.testing.assert_array_equal(REGIME.epoch_labels(epoch), LABELS)


def test_a_task_is_a_function_of_the_seed_and_changes_after_its_epochs():
    same = ClassSubsets(SPLIT, classes=10, epochs=3, seed=4)
    other = ClassSubsets(SPLIT, classes=10, epochs=3, seed=5)
    tasks = [tuple(REGIME.task_classes(epoch)) for epoch in range(12)]
    assert tasks[0] == tasks[2] != tasks[3] == tasks[5] != tasks[6]
    assert tasks == [tuple(same.task_classes(epoch)) for epoch in range(12)]
    assert tasks != [tuple(other.task_classes(epoch)) for epoch in range(12)]
    assert len({tuple(REGIME.task_classes(6 * n)) for n in range(15)}) > 8


def test_every_class_is_learned_some_time():
    assert {c for task in range(30) for c in REGIME.task_classes(3 * task)} == set(range(10))


def test_batches_hold_the_images_of_the_task_alone():
    mean, std = np.zeros(3), np.ones(3)
    batches = train_batches(SPLIT, 20, seed=0, mean=mean, std=std, regime=REGIME, first_epoch=3)
    labels = np.concatenate([batch[1].numpy() for batch in batches.take(3)])
    assert len(labels) == 60  # an epoch has as many steps as one on all images
    assert set(labels) == set(REGIME.task_classes(3))


def test_accuracy_on_other_images_is_not_measured():
    assert not REGIME.generalizes


@pytest.mark.parametrize("sizes", [(0, 1), (11,), (2.5,)])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(DataError, match="sizes must be"):
        ClassSubsets(SPLIT, classes=10, epochs=3, seed=4, sizes=sizes)
