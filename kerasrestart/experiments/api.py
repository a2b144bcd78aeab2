"""`run` and `study`: the command lines, from Python. Settings have the names of the flags."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kerasrestart.experiments import references
from kerasrestart.experiments.paths import user_path
from kerasrestart.experiments.run_result import RunResult
from kerasrestart.experiments.study_result import StudyResult

_CODE = ("model", "init", "criterion", "select")


def run(
    *,
    logdir: str | os.PathLike = "tf_logs",
    run_name: str | None = None,
    resume: bool = True,
    **settings: Any,
) -> RunResult:
    """Makes one run: a baseline, then restarts, with records, a table and a report.

    It is `python -m kerasrestart.main`, and prints and writes what that does. The same call with a
    `run_name` resumes a run that was stopped, and returns the result of one that has ended.

    Example:
    ```python
    from kerasrestart import experiments

    def tiny(input_shape, classes):
        return keras.Sequential(
            [
                keras.Input(input_shape),
                layers.Conv2D(16, 3, activation="relu", name="conv1"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(classes),
            ]
        )

    result = experiments.run(
        model=tiny, dataset=(x, y), init="he_uniform", fraction=0.2, epochs=20, max_restarts=2
    )
    print(result.table[-1]["test_accuracy"])
    ```

    Args:
        logdir: Folder of all runs. Defaults to `"tf_logs"`.
        run_name: Name of this run's folder in it. Defaults to None: a name is made.
        resume: Whether to resume a run of that name. Defaults to True.
        **settings: As the flags that `python -m kerasrestart.main --help` lists, and with the same
            defaults: `model`, `dataset`, `init`, `epochs`, ... A value can also be an object:
            `model` a function `(input_shape, classes) -> keras.Model`; `dataset` arrays as
            `(x, y)`, `((x_train, y_train), (x_test, y_test))` or a dict, or an `ImageData`; `init`,
            `criterion` and `select` what `PartialRestart` takes; `callback` a Keras callback, a
            `RestartObserver`, a function that makes one, or a list of these. An object is recorded
            by its name and the hash of its source: code in other files, and values that a function
            finds outside its arguments, are not part of that.

    Returns:
        The result: table, history, model, and the run's folder.

    Raises:
        ValueError, OSError: A setting is wrong, data are not available, or the folder cannot be
            used; before training.
        RunStoppedError: The run could write no more, or its loss diverged.
        KeyboardInterrupt: The run was interrupted; the same call resumes it.
    """
    references.refuse_while_loading("experiments.run")
    from kerasrestart.experiments.records.run_record import read_record
    from kerasrestart.experiments.run import command

    with _errors_name_arguments():
        values = {name: _of_this_process(name, value) for name, value in settings.items()}
        place = {"logdir": os.fspath(logdir), "run_name": run_name, "resume": resume}
        record = command.main(command.PROGRAM.from_values({**values, **place}))
    name = run_name or pathlib.Path(record["timing"]["folder"]).name  # it may have been moved
    folder = user_path(logdir, "logdir") / name
    return RunResult(folder, read_record(folder))


def study(
    *,
    study_name: str,
    logdir: str | os.PathLike = "tf_logs",
    network: Any = "mininet",
    arms: str | Sequence[str] | None = None,
    arm: Mapping[str, Mapping[str, Any]] | Sequence[str] = (),
    seeds: int | str | Sequence[int] | range = "0-2",
    sweep: Mapping[str, Any] | Sequence[str] = (),
    tune: Mapping[str, Any] | Sequence[str] = (),
    pair: str | Sequence[str] = (),
    **settings: Any,
) -> StudyResult:
    """Compares ways to restart over several seeds with a control, and writes the report.

    It is `python -m kerasrestart.study`: each run is a process of its own, and the same call
    resumes a study that was stopped. In a script, put it under `if __name__ == "__main__":`.

    Example:
    ```python
    from kerasrestart import experiments
    from nets import tiny, wide

    result = experiments.study(
        study_name="mine", network=[tiny, wide], arms=["uniform", "random"], seeds=range(4),
        dataset="folder:birds", image_size=64, round_epochs=10,
    )
    print(result)
    ```

    Args:
        study_name: Name of the study's folder in `logdir`.
        logdir: Defaults to `"tf_logs"`.
        network: A network or a list of them: a name, or a function
            `(input_shape, classes) -> keras.Model` from a module or script. Or a dict of networks
            by name, each a dict of settings: `{"tiny": {"model": tiny, "augment": True}}`. Defaults
            to `"mininet"`.
        arms: What is compared, as `--arms`. Defaults to None: as there.
        arm: Further arms by name, each a dict of settings: `{"mine": {"select": rule}}`. Defaults
            to none.
        seeds: Such as `range(4)` or `"0-3"`, or one seed. Defaults to `"0-2"`.
        sweep: Values of settings for all arms: `{"fraction": [0.05, 0.1]}`. Defaults to none.
        tune: Values of which each arm takes its best: `{"learning_rate": [0.01, 0.001]}`, as
            `--tune`. Defaults to none.
        pair: Arms that are compared with each other: `"uniform:random"`, or several. Defaults to
            none.
        **settings: As the flags that `python -m kerasrestart.study --help` lists: settings of all
            runs, and of the study, such as `workers`. Functions must be importable from a module or
            script; arrays are written to the study's folder.

    Returns:
        The result: a row for each comparison and each run, and the report; with `dry_run=True`
        there is none of these.

    Raises:
        ValueError, OSError: A setting is wrong, a folder holds runs with other settings, or no run
            has finished.
        RunStoppedError: Runs failed; the report of the others is written.
        KeyboardInterrupt: The study was interrupted; the same call resumes it.
    """
    references.refuse_while_loading("experiments.study")
    from kerasrestart.experiments.study import command

    folder = user_path(logdir, "logdir") / study_name
    arrays = _Arrays(folder)
    with _errors_name_arguments():
        values = {name: _of_any_process(name, of, arrays) for name, of in settings.items()}
        parsed = command.PROGRAM.from_values(
            {
                **values,
                "study_name": study_name,
                "logdir": os.fspath(logdir),
                "network": _networks(network, arrays),
                "arms": arms.split(",") if isinstance(arms, str) else arms and list(arms),
                "arm": _named(arm, arrays),
                "seeds": ",".join(map(str, _several(seeds))),
                "sweep": _sweeps(sweep),
                "tune": _sweeps(tune),
                "pair": _several(pair),
            }
        )
        command.read_plan(parsed)  # refuses wrong settings before the arrays are written
        arrays.write()  # also for a dry run, whose commands read them
        command.main(parsed)
    return StudyResult(folder, folder / (parsed.values["report_name"] or "") / "report.html")


class _Arrays:
    """Images that are given as arrays, which the runs of a study read from its folder."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._images: dict[pathlib.Path, Any] = {}

    def add(self, images: Any) -> str:
        """The file that the images will be in, as a setting."""
        path = self._folder / f"{images.name}-{images.fingerprint[:12]}.npz"
        self._images[path] = images
        return f"npz:{path}"

    def write(self) -> None:
        """Writes those that are not there yet."""
        from kerasrestart.experiments.data.arrays import save_npz

        for path, images in self._images.items():
            if not path.exists():
                save_npz(path, images)


def _networks(network: Any, arrays: _Arrays) -> list[str]:
    if isinstance(network, Mapping):
        return _named(network, arrays)
    several = network if isinstance(network, list | tuple) else [network]
    return [_of_any_process("model", one, arrays) for one in several]


def _named(parts: Mapping[str, Mapping[str, Any]] | Sequence[str], arrays: _Arrays) -> list[str]:
    """Networks or arms as they are typed: `NAME:flag=value,flag=value`."""
    if not isinstance(parts, Mapping):
        return [parts] if isinstance(parts, str) else list(parts)
    found = []
    for label, settings in parts.items():
        words = []
        for name, value in settings.items():
            text = _typed(_of_any_process(name, value, arrays))
            if "," in text:
                raise ValueError(f"{name} of {label!r} must have no comma. Received: {text!r}")
            words += [f"{name}={text}"] if value is not None else []
        found.append(f"{label}:{','.join(words)}")
    return found


def _sweeps(sweep: Mapping[str, Any] | Sequence[str]) -> list[str]:
    if not isinstance(sweep, Mapping):
        return _several(sweep)
    return [f"{name}={','.join(map(_typed, _several(of)))}" for name, of in sweep.items()]


def _several(value: Any) -> list[Any]:
    """A list of what may be given alone."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_this_process(name: str, value: Any) -> Any:
    """A setting as text where it is an object; the object is found by it in this process."""
    if value is None or isinstance(value, str):
        return value
    if name == "dataset":
        images = _images(value)
        text = f"arrays:{images.name}_{images.fingerprint[:12]}"
        return references.register(images, text, sha256=images.fingerprint)
    if name == "callback":
        several = value if isinstance(value, list | tuple) else [value]
        for one in several:
            if not isinstance(one, str):
                _check_function(name, one)
        texts = [
            one if isinstance(one, str) else _callback(one, n) for n, one in enumerate(several)
        ]
        return ",".join(texts) or None
    if name in _CODE:
        _check_function(name, value)
        return references.register(value)
    return _plain(value)


def _callback(value: Any, number: int) -> str:
    if hasattr(value, "__qualname__"):  # a function or a class
        return references.register(value)
    kind = type(value)
    text = f"{kind.__module__}:{kind.__qualname__}{f'_{number + 1}' if number else ''}"
    return references.register_result(value, text)


def _of_any_process(name: str, value: Any, arrays: _Arrays) -> Any:
    """A setting as text that other processes understand."""
    if value is None or isinstance(value, str):
        return value
    if name == "dataset":
        return arrays.add(_images(value))
    if name == "callback" and isinstance(value, list | tuple):
        return ",".join(_of_any_process(name, one, arrays) for one in value) or None
    if name in (*_CODE, "callback"):
        _check_function(name, value)
        if not references.is_importable(value):
            raise ValueError(
                f"{name} must be defined at the top of a module or script, from which the runs of "
                f"a study import it. Received: {value!r}"
            )
        return references.register(value)
    return _plain(value)


def _check_function(name: str, value: Any) -> None:
    from kerasrestart.experiments.settings import SETTINGS

    is_plain = type(value).__module__ == "builtins" and not callable(value)
    if is_plain and not isinstance(value, Mapping):  # that is an initializer's config
        setting = SETTINGS[name]
        choices = f"one of {', '.join(setting.choices)}, or " if setting.choices else ""
        raise ValueError(f"{name} must be {choices}{setting.reference}. Received: {value!r}")
    is_model = hasattr(value, "trainable_variables") and not isinstance(value, type)
    if name == "model" and is_model:
        raise ValueError(
            "model must be a function (input_shape, classes) -> keras.Model: each run makes its "
            f"own model. Received: the model {value.name!r}"
        )


def _plain(value: Any) -> Any:
    """Paths as text, NumPy's numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def _images(value: Any) -> Any:
    from kerasrestart.experiments.data.arrays import from_arrays

    return from_arrays(value, "arrays")


@contextlib.contextmanager
def _errors_name_arguments() -> Iterator[None]:
    """Makes errors about flags name arguments."""
    from kerasrestart.experiments.data.errors import DataError
    from kerasrestart.experiments.setting import SettingError, as_arguments

    try:
        yield
    except (SettingError, DataError) as error:
        raise type(error)(as_arguments(str(error))) from error
