"""Where the tests find a copy of CIFAR-10 that TFDS has prepared."""

import os
from pathlib import Path

import pytest

from kerasrestart.experiments.data.cifar10 import find_prepared

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def prepared_dir():
    sibling = REPOSITORY.parent / "shared" / "tensorflow_datasets"
    root = Path(os.environ.get("KERASRESTART_TEST_CIFAR10", sibling))
    if find_prepared(root) is None:
        pytest.skip(
            f"no CIFAR-10 prepared by TFDS in {root}; name its folder in KERASRESTART_TEST_CIFAR10"
        )
    return root
