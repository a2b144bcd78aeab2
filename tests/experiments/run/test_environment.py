"""What a user's configuration of Keras and of the process may not change."""

import json
import os
import subprocess
import sys

import keras
import pytest

from kerasrestart.experiments import startup
from kerasrestart.experiments.run.environment import describe_environment, run_environment
from kerasrestart.experiments.run.strategies import make_strategy


def test_a_run_has_its_own_options_and_leaves_the_users():
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float16")
    keras.config.set_epsilon(1e-3)
    try:
        with run_environment("mixed_float16"):
            inside = describe_environment()
        after = describe_environment()
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
    expected = {
        "backend": "tensorflow",
        "floatx": "float32",
        "epsilon": 1e-7,
        "image_data_format": "channels_last",
        "dtype_policy": "mixed_float16",
    }
    assert {name: inside[name] for name in expected} == expected
    assert (after["floatx"], after["epsilon"]) == ("float16", 1e-3)
    assert after["image_data_format"] == "channels_first"
    json.dumps(inside)


def test_keras_json_cannot_choose_the_backend_but_the_environment_is_asked(monkeypatch):
    for name in ("KERAS_BACKEND", "KERAS_MAX_EPOCHS"):
        monkeypatch.delenv(name, raising=False)
    startup.choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "3")
    with pytest.raises(ValueError, match="KERAS_MAX_EPOCHS must be unset"):
        startup.choose_backend()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ValueError, match="must be 'tensorflow' or unset"):
        startup.choose_backend()


@pytest.mark.parametrize("config", ["nonsense", "3", '{"cluster": 3}', "[]"])
def test_a_configuration_of_a_cluster_is_not_for_a_run_on_one_machine(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    assert make_strategy("mirrored").num_replicas_in_sync == 1
    assert os.environ["TF_CONFIG"] == config


def test_an_empty_backend_is_none(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "")
    startup.choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_closed_standard_streams_are_opened_on_the_null_device(tmp_path):
    code = (
        "import os, sys\n"
        "from kerasrestart.experiments.startup import open_closed_streams\n"
        "open_closed_streams()\n"
        "print('lost'); sys.stdout.isatty(); sys.stderr.write('lost'); sys.stdin.read()\n"
        f"file = open({str(tmp_path / 'mine')!r}, 'w')\n"
        "os.write(1, b'lost'); os._exit(file.fileno() < 3)"
    )
    command = f'exec "{sys.executable}" -c "$CODE" <&- >&- 2>&-'
    environment = {**os.environ, "CODE": code}
    assert subprocess.run(["sh", "-c", command], env=environment, check=False).returncode == 0
    assert (tmp_path / "mine").read_text() == ""
