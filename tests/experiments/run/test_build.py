"""What settings make: models and their optimizers."""

import keras
import pytest

from kerasrestart.experiments import data, names
from kerasrestart.experiments.run.build import build_model
from kerasrestart.experiments.run_flags import parse_settings


@pytest.fixture(scope="module")
def images():
    return data.load("shapes", shapes_examples=100, train_examples=40)


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", names.OPTIMIZERS)
def test_every_optimizer_is_made_with_its_rate_and_decay(name, decay, images):
    chosen = parse_settings(
        [f"--optimizer={name}", f"--weight_decay={decay}", "--learning_rate=0.25"]
    )
    optimizer = build_model(chosen, images)[0].optimizer
    assert type(optimizer).__name__.lower() == name
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert float(optimizer.learning_rate) == 0.25
    assert (optimizer.weight_decay or 0) == decay
