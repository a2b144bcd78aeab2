"""`experiments.run` and `experiments.study`: the command lines, from Python."""

import importlib
import pathlib
import shlex

import keras
import numpy as np
import pytest
from keras import layers

from kerasrestart import experiments
from kerasrestart.experiments.run import command
from kerasrestart.experiments.run_result import RunResult
from kerasrestart.experiments.study_result import StudyResult

CODE = """
import keras
from keras import layers
def tiny(input_shape, classes):
    return keras.Sequential([keras.Input(input_shape), layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalAveragePooling2D(), layers.Dense(classes)])
"""
SHORT = {"trigger": "epochs", "round_epochs": 1, "max_restarts": 1, "stop_on_repeat": False}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets.py").write_text(CODE)
    return tmp_path


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 6, 6), np.uint8), np.arange(30) % 2


def test_the_functions_stay_when_the_packages_of_their_names_are_imported():
    importlib.import_module("kerasrestart.experiments.run.train")
    importlib.import_module("kerasrestart.experiments.study.command")
    assert experiments.run is importlib.import_module("kerasrestart.experiments.api").run
    assert callable(experiments.study)


def test_a_run_takes_objects_and_returns_its_table_history_and_model(arrays, capsys):
    epochs = []

    def network(input_shape, classes):
        return keras.Sequential(
            [
                keras.Input(input_shape),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(classes),
            ]
        )

    def lowest(scores):
        return {name: of.argsort()[:2] for name, of in scores.items()}

    def make(**place):
        note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
        return experiments.run(
            model=network,
            dataset=arrays,
            init=keras.initializers.HeNormal(),
            select=lowest,
            callback=[keras.callbacks.TerminateOnNaN(), note],
            run_name="mine",
            **SHORT,
            **place,
        )

    result = make()
    assert isinstance(result, RunResult)
    assert epochs == [0, 1]
    assert [row["round"] for row in result.table] == ["baseline", "restart 1"]
    assert result.table[1]["restarted"] == {"conv": 2}
    assert len(result.history["val_loss"]) == 2
    assert result.model.predict(np.zeros((2, 6, 6, 1)), verbose=0).shape == (2, 2)
    assert result.report.exists()
    assert "restart 1" in str(result)
    assert result.record["events"][0]["initializer"] == "HeNormal"
    capsys.readouterr()
    assert make().record == result.record  # it has ended: nothing is trained
    assert epochs == [0, 1]
    assert "has ended already" in capsys.readouterr().out
    pathlib.Path("tf_logs").rename("elsewhere")
    moved = make(logdir="elsewhere")
    assert moved.path == pathlib.Path("elsewhere/mine")
    assert moved.history == result.history


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "mininet"}, "'modle' is not a setting of kerasrestart.main. Did you mean model"),
        ({"fraction": 3}, "^fraction must be a number between 0 and 1"),
        ({"model": "own_nets.py:tinny"}, "^model must be .* Did you mean tiny"),
        ({"init": "zeros", "outgoing": "zero"}, "Received: init=zeros, outgoing=zero"),
        ({"dataset": (np.zeros((4, 4)), np.zeros(4))}, "Images must be"),
        ({"dataset": "npz:missing.npz"}, "^dataset=npz:FILE must name a NumPy file"),
        ({"model": keras.Sequential(name="built")}, "^model must be a function .* 'built'"),
        ({"model": 3}, r"^model must be one of mininet, .* keras\.Model\. Received: 3$"),
        ({"init": [1]}, r"^init must be one of uniform, .* or Keras's\. Received: \[1\]$"),
        ({"criterion": 0.5}, r"^criterion must be one of taylor, .* Received: 0\.5$"),
        ({"select": (1,)}, r"^select must be one of fraction, .* Received: \(1,\)$"),
        ({"callback": [3]}, r"^callback must be a function \(\) -> .* Received: 3$"),
        ({"model": "alexnet"}, "image_size must be 63 pixels or more, .* Received: no image_size$"),
        ({"patience": 3, "trigger": "epochs"}, "^patience has an effect only with trigger=plateau"),
    ],
)
def test_an_error_names_arguments(settings, message, place):
    with pytest.raises(ValueError, match=message):
        experiments.run(**settings)
    assert not (place / "tf_logs").exists()


def test_a_study_from_python_and_its_report_notice_changed_code(arrays, capsys, place):
    study = {
        "study_name": "mine",
        "network": {"small": {"model": "own_nets.py:tiny"}},
        "arms": [],
        "arm": {"all_layers": {"layers": ".*", "fraction": 0.25}},
        "seeds": range(1),
        "dataset": arrays,
        "round_epochs": 1,
        "max_restarts": 1,
        "fraction": 0.25,
    }
    experiments.study(**study, dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:  # as the study's processes do
        command.main(command.PROGRAM.parse(shlex.split(line)[3:]))
    result = experiments.study(**study, collect=True)
    assert isinstance(result, StudyResult)
    assert [(row["arm"], row["n"]) for row in result.table] == [("none", 1), ("all_layers", 1)]
    assert [(row["folder"], row["epochs"]) for row in result.runs] == [
        ("small-none-s0", 2),
        ("small-all_layers-s0", 2),
    ]
    assert result.report.exists()
    assert "all_layers" in str(result)
    (place / "own_nets.py").write_text(CODE + "\n# changed")
    with pytest.raises(ValueError, match=r"the code of model=own_nets.py:tiny has changed"):
        experiments.study(**study, collect=True)
    with pytest.raises(ValueError, match=r"the code of --model=own_nets.py:tiny has changed"):
        command.main(command.PROGRAM.parse(shlex.split(lines[0])[3:]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": lambda shape, classes: None}, "model must be defined at the top of a module"),
        ({"sede": 3}, "'sede' is not a setting of kerasrestart.study"),
        ({"sweep": {"fraction": [3]}}, "In the run .* fraction must be a number"),
        ({"network": "own_nets.py:tinny"}, "^model must be .* Did you mean tiny"),
        ({"network": "own_nets.py:tiny", "seeds": "x"}, "^seeds must be such as"),
        ({"network": keras.Sequential(name="built")}, "Received: the model 'built'"),
        ({"network": 3}, r"^model must be one of mininet, .* Received: 3$"),
        ({"arm": {"a": {"init": 3}}}, r"^init must be one of uniform, .* Received: 3$"),
        ({"callback": [3]}, r"^callback must be a function \(\) -> .* Received: 3$"),
    ],
)
def test_a_study_is_refused_before_any_run(settings, message, arrays, place):
    with pytest.raises(ValueError, match=message):
        experiments.study(**{"study_name": "mine", "dataset": arrays, **settings})
    assert not (place / "tf_logs").exists()


def test_settings_of_an_arm_may_be_left_out_and_have_no_comma(capsys, place):
    arm = {"mine": {"layers": None, "fraction": 0.2}}
    experiments.study(study_name="mine", network="mininet", arm=arm, dry_run=True)
    assert "--layers" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="layers of 'mine' must have no comma"):
        experiments.study(study_name="mine", arm={"mine": {"layers": "conv{1,2}"}})


@pytest.mark.parametrize(
    ("alone", "typed"),
    [
        ({"arms": "uniform,he"}, {"arms": ["uniform", "he"]}),
        ({"seeds": 3}, {"seeds": "3"}),
        ({"seeds": np.int64(3)}, {"seeds": [3]}),
        ({"sweep": {"fraction": 0.1}}, {"sweep": ["fraction=0.1"]}),
        ({"arms": ["uniform", "he"], "pair": "uniform:he"}, {"pair": ["uniform:he"]}),
        (
            {"tune": {"learning_rate": [0.1, 0.01]}, "tune_seeds": "9"},
            {"tune": "learning_rate=0.1,0.01"},
        ),
        ({"round_epochs": np.int64(3)}, {"round_epochs": 3}),
    ],
    ids=str,
)
def test_what_a_list_holds_may_be_given_alone(alone, typed, capsys, place):
    plans = []
    for given in (alone, {**alone, **typed}):
        result = experiments.study(study_name="mine", dataset="shapes", dry_run=True, **given)
        plans.append(capsys.readouterr().out)
        assert str(result).startswith("No report in")
    assert plans[0] == plans[1] != ""


class Unsaved(keras.Model):
    """A subclass whose arguments Keras cannot write into a config."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, activation="relu")
        self.flat, self.out = layers.Flatten(), layers.Dense(classes)

    def call(self, x):
        return self.out(self.flat(self.conv(x)))


def test_a_run_of_a_model_that_keras_cannot_save_keeps_its_weights(arrays, capsys):
    result = experiments.run(model=Unsaved, dataset=arrays, fraction=0.5, **SHORT)
    assert "model.weights.h5 has its weights alone" in capsys.readouterr().out
    assert result.report.exists()
    with pytest.raises(ValueError, match="only its weights were saved"):
        _ = result.model
    images = np.zeros((1, 6, 6, 1), "float32")
    model = Unsaved(None, 2)
    model(images)
    model.load_weights(result.path / "model.weights.h5")
    assert np.isfinite(model(images)).all()
