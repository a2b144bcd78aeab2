"""Every setting of a run, once: flags, `run.json`, the check on resume and a study's plan follow.

To add a setting, add a field here, use it where it matters, and test that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kerasrestart.experiments.combinations import (
    check_combination,
    in_flags,
    restart_plan_arguments,
)
from kerasrestart.experiments.effects import without_effect
from kerasrestart.experiments.setting import REFERENCE, Setting, SettingError
from kerasrestart.restart.initializer_names import CONTROLS, INITIALIZERS
from kerasrestart.restart.reset import OUTGOING, SECOND_MOMENTS
from kerasrestart.scoring.criterion_names import CRITERIA

DATASETS = ("auto", "cifar10", "shapes")
TASKS = ("none", "random_labels", "shuffled_classes", "class_subsets")
ACTIVATIONS = ("relu", "leaky_relu", "crelu")
NORMS = ("none", "batch", "layer")
REMEDIES = ("none", "head_reset", "full_reset", "optimizer_reset", "shrink_and_perturb")
MODELS = ("mininet", "alexnet", "resnet20")
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def _setting(default: Any, description: str, *, group: str, **options: Any) -> Any:
    definition = {"default": default, "help": description, "group": group, **options}
    return dataclasses.field(default=default, metadata=definition)


_data = functools.partial(_setting, group="data")
_model = functools.partial(_setting, group="model")
_restart = functools.partial(_setting, group="restart", after_baseline=True)
_remedy = functools.partial(_setting, group="remedy", after_baseline=True)
_schedule = functools.partial(_setting, group="schedule")
_training = functools.partial(_setting, group="training")
_run = functools.partial(_setting, group="run")


def _nothing(value: Any) -> None:
    """What must stay the same of a setting that may differ when a run is resumed."""
    del value


def _is_pattern(text: str) -> bool:
    try:
        return bool(re.compile(text))
    except re.error:
        return False


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of one run; each is the flag of the same name.

    Example:
    ```python
    settings = RunSettings(model="mininet", dataset="shapes", init="he", fraction=0.2)
    ```

    The range of a setting that is an argument of the library is checked by the library's own class
    (`Fraction`, `OnPlateau`, `Reset`, ...), all others by the definitions here.

    Raises:
        SettingError: A value is wrong, two settings exclude each other, or one has no effect with
            the others.
    """

    dataset: str = _data(
        "auto",
        "The images: cifar10 (through TFDS), shapes (built in, drawn by NumPy), or auto: cifar10 "
        "if it is prepared or can be downloaded, otherwise shapes. Of your own: a data set of "
        "TFDS, a folder with a folder for each class, a NumPy file, or a function that returns "
        "arrays.",
        choices=DATASETS,
        forms=("tfds:NAME", "folder:PATH", "npz:FILE", REFERENCE),
        reference="a function () -> arrays (x, y), or ((x_train, y_train), (x_test, y_test))",
    )
    data_dir: str | None = _data(
        None,
        "Folder of TFDS's data sets. Default: $TFDS_DATA_DIR, otherwise ~/tensorflow_datasets.",
        same_on_resume=_nothing,  # a folder may be moved; the images in it are compared
    )
    train_examples: int | None = _data(
        None, "Number of training images, equally many of each class. Default: all.", least=1
    )
    eval_examples: int | None = _data(
        None,
        "Number of validation images and of test images, equally many of each class. Default: all.",
        least=1,
    )
    label_noise: float = _data(
        0.0, "Fraction of the training images that get a wrong label.", least=0, most=1
    )
    warm_start_fraction: float | None = _data(
        None,
        "Train the first round on this fraction of the images, then on all of them (Ash and Adams "
        "2020).",
        above=0,
        below=1,
    )
    tasks: str = _data(
        "none",
        "A new task in each round, to show loss of plasticity (Dohare et al. 2024): random_labels "
        "gives each training image a random label, shuffled_classes permutes the classes, "
        "class_subsets has images of five classes, then of one, in turn (Kumar et al. 2024).",
        choices=TASKS,
    )
    augment: bool = _data(False, "Flip and shift the training images at random.")
    image_size: int | None = _data(
        None,
        "Height and width to which images are resized (bilinear). Default: as they are stored. "
        "Needed for --dataset=folder:PATH.",
        least=1,
    )

    model: str = _model(
        "mininet",
        "The network; your own as a function (input_shape, classes) -> keras.Model.",
        choices=MODELS,
        forms=(REFERENCE,),
        reference="a function (input_shape, classes) -> keras.Model",
        in_study="--network",
    )
    width: float = _model(
        1.0,
        "Factor on the filters and units of the hidden layers of --model=mininet.",
        above=0,
        most=16,
    )
    activation: str = _model(
        "relu",
        "Activation of the hidden layers: relu; leaky_relu, of slope 0.2; or crelu, relu of the "
        "features and of their negatives, which doubles the inputs of the next layer.",
        choices=ACTIVATIONS,
    )
    norm: str | None = _model(
        None,
        "Norm between a hidden layer and its activation: batch, or layer, over the channels of a "
        "position. Default: as published, batch for resnet20 and none for the others.",
        choices=NORMS,
    )
    l2_init: float = _model(
        0.0,
        "Add this times the sum of (weight - initial weight)^2 to the loss (Kumar et al. 2024).",
        least=0,
    )
    weights: str | None = _model(
        None,
        "Initial weights of --model=alexnet: a .safetensors or .pth file with torchvision's names, "
        "or imagenet, which downloads torchvision's file once. Images are then normalised as for "
        "ImageNet.",
        # A file may be moved; the weights in it are compared.
        same_on_resume=lambda value: value is None,
    )
    freeze_features: bool = _model(
        False, "Keep the convolutions of --weights: they are neither trained nor restarted."
    )
    pretrained_learning_rate_factor: float = _model(
        1.0, "Factor on the learning rate of the layers that have --weights.", above=0, most=1
    )

    init: str = _restart(
        "uniform",
        "Initializer of the restarted filters. Two controls: none resets the learning rate and "
        "restarts no filter; slots resets the optimizer state of the filters, not their weights.",
        choices=(*INITIALIZERS, *CONTROLS),
        forms=(REFERENCE,),
        reference="an initializer: a function (kernel, axis, seed, chosen) -> kernel, or Keras's",
        argument="initializer",
    )
    criterion: str = _restart(
        "taylor",
        "Criterion that scores filters.",
        choices=CRITERIA,
        forms=(REFERENCE,),
        reference="a criterion: a function (feature_map, gradient, channel_axis) -> scores",
    )
    select: str = _restart(
        "fraction",
        "Which filters to restart. fraction: those of lowest score, --fraction of each layer; "
        "global_fraction: --fraction of all layers together; below_mean: those that score at most "
        "--fraction of the mean score of their layer.",
        choices=("fraction", "global_fraction", "below_mean"),
        forms=(REFERENCE,),
        reference="a function scores -> {layer: indices}",
    )
    fraction: float = _restart(0.1, "Fraction that --select uses.")
    cap: float | None = _restart(
        None,
        "Largest fraction of one layer to restart, for --select=global_fraction (default: 0.5) and "
        "--select=below_mean (default: 1).",
    )
    normalize: str = _restart(
        "none",
        "What the scores of a layer are divided by for --select=global_fraction: their L2 norm or "
        "their mean.",
        choices=("none", "l2", "mean"),
    )
    min_survivors: int = _restart(1, "Number of filters that every layer keeps at least.")
    layers: str | None = _restart(
        None,
        "Which layers to restart: a regular expression that matches whole names; '.*' includes "
        "dense layers. Default: all convolutions.",
        valid=_is_pattern,
        expected="a regular expression",
    )
    outgoing: str = _restart(
        "keep",
        "Weights by which other layers read a restarted filter: keep them, or set them to zero, so "
        "that a new filter has no effect until it has learned.",
        choices=OUTGOING,
    )
    grace_restarts: int = _restart(
        1, "With --outgoing=zero: number of restarts in which a new filter cannot be selected."
    )
    second_moment: str = _restart(
        "zero",
        "Second moments that an adaptive optimizer gets for new weights: zero, or the mean of the "
        "surviving filters.",
        choices=SECOND_MOMENTS,
    )
    norms: bool = _restart(True, "Reset a restarted filter's channel in its normalization layer.")
    compensate_bias: bool = _restart(
        False,
        "With --outgoing=zero: add to the biases what restarted filters contributed on average.",
    )
    score_every: int = _restart(
        1, "Score every N-th batch. Changes weights only through restarts.", argument="every"
    )
    score_window: int | None = _restart(
        None,
        "Score only in epochs after which a restart can come within N epochs. Default: in all "
        "epochs.",
        argument="window",
    )

    remedy: str = _remedy(
        "none",
        "What else each restart does, after the filters: head_reset re-initialises the layer that "
        "makes the output, full_reset all weights and the optimizer state, optimizer_reset that "
        "state alone, shrink_and_perturb multiplies weights by --shrink and adds noise (Ash and "
        "Adams 2020).",
        choices=REMEDIES,
    )
    shrink: float = _remedy(
        0.4, "Factor on all weights of --remedy=shrink_and_perturb.", least=0, most=1
    )
    perturb: float = _remedy(
        0.01, "Standard deviation of the noise of --remedy=shrink_and_perturb.", least=0
    )

    trigger: str = _schedule(
        "plateau",
        "What ends a round of training: plateau (no improvement of --monitor for --patience "
        "epochs), or epochs (--round_epochs, so that all runs of a comparison train equally long).",
        choices=("plateau", "epochs"),
        argument="when",
        fixed_in_study="epochs",
    )
    monitor: str = _schedule(
        "val_loss", "Metric to monitor; it also selects the best epoch of a round.", choices=METRICS
    )
    patience: int = _schedule(5, "Epochs without improvement that make a plateau.")
    min_delta: float = _schedule(0.0, "Smallest change of --monitor that is an improvement.")
    round_epochs: int = _schedule(15, "Epochs of a round with --trigger=epochs.", argument="epochs")
    max_restarts: int = _schedule(3, "Largest number of restarts.", least=0, after_baseline=True)
    stop_on_repeat: bool = _schedule(
        True,
        "Stop restarting when the same filters are selected as the last time, as in the paper. "
        "--init=none and --init=slots always make --max_restarts.",
        after_baseline=True,
        fixed_in_study=False,
    )
    target: float | None = _schedule(
        None, "Value of --monitor at which training ends.", fixed_in_study=None
    )
    epochs: int = _schedule(
        200, "Largest number of epochs of the run.", least=1, after_baseline=True
    )
    learning_rate_drops: int = _schedule(
        0,
        "Number of times that a round lowers the learning rate before it ends: at a plateau, or "
        "evenly spread with --trigger=epochs.",
    )
    learning_rate_factor: float = _schedule(0.1, "Factor on the learning rate at each drop.")

    batch_size: int = _training(128, "Images of a training step.", least=1)
    optimizer: str = _training("sgd", "The optimizer.", choices=("sgd", "adam", "adamw", "rmsprop"))
    learning_rate: float = _training(0.01, "Learning rate at the start of each round.", above=0)
    momentum: float = _training(0.9, "Momentum of sgd and rmsprop.", least=0, most=1)
    beta_2: float = _training(
        0.999, "Decay of the second moments of adam and adamw.", least=0, below=1
    )
    epsilon: float = _training(
        1e-7, "Term that adam, adamw and rmsprop add to the denominator of a step.", above=0
    )
    weight_decay: float = _training(
        0.0, "Decoupled weight decay, scaled by the learning rate.", least=0
    )
    precision: str = _training(
        "auto",
        "Number format of the computation; weights are float32. auto is float32. mixed_bfloat16 "
        "can be faster on CPUs with AVX512-BF16 and on GPUs, mixed_float16 on GPUs.",
        choices=("auto", "float32", "mixed_float16", "mixed_bfloat16"),
    )
    jit_compile: bool | None = _training(
        None, "Compile with XLA. Default: as Keras decides, on GPUs but not on CPUs."
    )
    strategy: str = _training(
        "none",
        "Devices: none for one, mirrored for all GPUs of this machine. Each batch is split over "
        "them.",
        choices=("none", "mirrored"),
    )
    seed: int = _training(
        0,
        "Seed of the initial weights, the order of the images and the restarts.",
        least=0,
        most=2**31 - 1,
        in_study="--seeds",
    )

    callback: str | None = _run(
        None,
        "Your own callbacks: functions without arguments, or classes, that make a Keras callback "
        "or a RestartObserver. Repeat the flag for several.",
        forms=(REFERENCE,),
        reference="a function () -> keras.callbacks.Callback or RestartObserver",
        repeated=True,
    )
    baseline: str | None = _run(
        None,
        "Folder of a run whose baseline this run continues, so that runs that restart in different "
        "ways share the first round.",
        after_baseline=True,
        same_on_resume=_nothing,
        in_study="no baseline, a study makes its own",
    )
    matched_run: str | None = _run(
        None,
        "Folder of a run that has ended: restart as many filters in each layer as it did at each "
        "restart, in place of --select; with --criterion=random, at random. In a study's arm: the "
        "name of another arm.",
        after_baseline=True,
        # A folder may be moved with its runs.
        same_on_resume=lambda value: value and pathlib.PurePath(value).name,
    )
    test_each_epoch: bool = _run(
        False,
        "Also test after each epoch: column test_accuracy of history.csv. Nothing is chosen by it; "
        "it shows what choosing the best epoch by the test set would claim.",
    )
    on_nan: str = _run(
        "stop",
        "When the loss is not finite: stop, with the last good state saved; or rollback: continue "
        "from that state with the learning rate lowered by --learning_rate_factor, at most three "
        "times.",
        choices=("stop", "rollback"),
        same_on_resume=_nothing,  # it has changed nothing so far
    )

    def __post_init__(self):
        for name, setting in SETTINGS.items():
            setting.check(getattr(self, name))
        values = self.to_dict()
        check_combination(values)
        from kerasrestart.restart.plan import RestartPlan  # brings NumPy: not for `--help`

        with errors_name_flags():
            RestartPlan(**restart_plan_arguments(values))
        for error in without_effect(values, SETTINGS).values():
            raise error

    @property
    def dtype_policy(self) -> str:
        """The Keras dtype policy that `precision` names."""
        return "float32" if self.precision == "auto" else self.precision

    def to_dict(self) -> dict[str, Any]:
        """The settings as `run.json` holds them."""
        return dataclasses.asdict(self)

    def to_flags(self) -> list[str]:
        """The flags that make these settings: those whose value is not the default."""
        return [
            setting.as_flag(value)
            for name, setting in SETTINGS.items()
            if (value := getattr(self, name)) != setting.default
        ]

    def differences(self, others: Mapping[str, Any], ignored: Collection[str] = ()) -> list[str]:
        """Names the flags in which these settings differ from those of a run to resume.

        Args:
            others: Settings as `to_dict` made them; a missing one counts as its default.
            ignored: Names of settings that may differ. Defaults to none.

        Returns:
            A few words for each flag: its other value and its value here.
        """
        found = []
        without = without_effect(others, SETTINGS)
        for name, value in self.to_dict().items():
            default = SETTINGS[name].default
            was = others.get(name, default)
            # Once accepted though it did nothing.
            same = name in without and value == default
            kept = SETTINGS[name].same_on_resume or (lambda value: value)
            if name not in ignored and not same and kept(was) != kept(value):
                found.append(f"--{name} was {was!r}, is {value!r}")
        return found


def _definitions() -> dict[str, Setting]:
    types = typing.get_type_hints(RunSettings)
    found = {}
    for field in dataclasses.fields(RunSettings):
        hint = types[field.name]
        kind = (*typing.get_args(hint), hint)[0]  # int of `int | None`
        found[field.name] = Setting(field.name, kind, **field.metadata)
    return found


SETTINGS: dict[str, Setting] = _definitions()
"""The definitions, by name, in the order of `--help` and `run.json`."""

AFTER_BASELINE = frozenset(name for name, setting in SETTINGS.items() if setting.after_baseline)
"""Settings that change nothing before the first restart: runs that differ in them can share a
baseline."""


@contextlib.contextmanager
def errors_name_flags() -> Iterator[None]:
    """Turns an error about the library's arguments into one about the flags that set them.

    Raises:
        SettingError: The block raised a ValueError.
    """
    try:
        yield
    except SettingError:
        raise
    except ValueError as error:
        names = {name: name for name in SETTINGS}
        aliases = {s.argument: name for name, s in SETTINGS.items() if s.argument}
        message = in_flags(str(error), {**names, **aliases, "control": "init"})
        raise SettingError(message) from error


def as_flag(name: str, value: Any) -> str:
    """Writes a setting as a flag, such as `--fraction=0.1` or `--noaugment`."""
    return SETTINGS[name].as_flag(value)


def is_plain_name(value: str) -> bool:
    """Whether a name is a single, visible part of a path, so that it stays in its folder."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*", value) is not None
