"""The copy of CIFAR-10 that the tests use, prepared by TFDS."""

import os
from pathlib import Path

import pytest

from kerasrestart.experiments.data.tfds_copy import find_prepared

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def prepared_dir():
    sibling = REPOSITORY.parent / "shared" / "tensorflow_datasets"
    root = Path(os.environ.get("KERASRESTART_TEST_CIFAR10", sibling))
    if find_prepared(root, "cifar10") is None:
        pytest.skip(
            f"No CIFAR-10 prepared by TFDS in {root}; set KERASRESTART_TEST_CIFAR10 to its folder."
        )
    return root
