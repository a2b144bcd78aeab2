"""A run's settings and outcomes, as TensorBoard's HParams tab reads them."""

import pytest

from kerasrestart.experiments.report.hparams import write_run_hparams
from kerasrestart.experiments.settings import RunSettings
from tests.experiments.report.hparams_sessions import sessions


def record(accuracies, **settings):
    rows = [
        {"validation_accuracy": best, "test_accuracy": test, "train_accuracy_last": 0.9}
        for best, test in accuracies
    ]
    return {"settings": RunSettings(**settings).to_dict(), "table": rows}


def test_runs_with_other_settings_share_the_columns_of_one_folder(tmp_path):
    runs = {
        "a": record([(0.5, 0.25), (0.75, 0.5)], init="he"),
        "b": record([(None, None)], init="uniform", weight_decay=0.5, baseline="elsewhere"),
    }
    for _ in range(2):  # written again, they are no more
        for name, of_run in runs.items():
            (tmp_path / name).mkdir(exist_ok=True)
            write_run_hparams(tmp_path / name, of_run)
    found = sessions(tmp_path)
    assert set(found) == set(runs)
    values, metrics = found["a"]
    assert {"init": "he", "model": "mininet", "seed": 0}.items() <= values.items()
    assert "weight_decay" not in values
    assert metrics == pytest.approx(
        {
            "outcome/validation, best epoch": 75,
            "outcome/test, best epoch": 50,
            "outcome/training, last epoch": 90,
        }
    )
    values, metrics = found["b"]
    assert {"init": "uniform", "weight_decay": 0.5}.items() <= values.items()
    assert "baseline" not in values
    assert metrics == pytest.approx({"outcome/training, last epoch": 90})
