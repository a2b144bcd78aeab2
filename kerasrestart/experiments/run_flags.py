"""The flags of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from absl import flags

from kerasrestart.experiments import names
from kerasrestart.experiments.settings import RunSettings, is_plain_name
from kerasrestart.restart import names as restart_names


def parse_settings(arguments: Sequence[str]) -> RunSettings:
    """Reads the settings off a command line, aside from absl's own flags.

    Args:
        arguments: Flags of `define_flags`, such as `--model=mininet`; what is not given has its
            default.

    Raises:
        absl.flags.Error: A flag is not known, its value is wrong or does not go with another, or an
            argument is no flag.
    """
    values = flags.FlagValues()
    define_flags(values)
    if rest := values(["parse_settings", *arguments])[1:]:
        raise flags.Error(f"Expected flags only. Received: {rest[0]!r}")
    return RunSettings.from_flags(values)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of one run; a command line calls this once, before it parses.

    Args:
        values: Where to. Defaults to absl's own.
    """
    into = {"flag_values": values}
    whole = {"lower_bound": 1, **into}
    share = {"lower_bound": 0.0, **into}
    flags.DEFINE_enum("model", "mininet", names.MODELS, "The network.", **into)
    flags.DEFINE_enum(
        "dataset",
        "auto",
        names.DATASETS,
        "The images: cifar10 (through TFDS), shapes (built in, drawn by numpy), or auto: cifar10 "
        "where it is prepared or can be downloaded, else shapes.",
        **into,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "TFDS folder of CIFAR-10. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
        **into,
    )
    flags.DEFINE_integer(
        "train_examples", None, "Train on this many images only, evenly of each class.", **whole
    )
    flags.DEFINE_float(
        "label_noise", 0.0, "Share of the training images that get a wrong label.", **share
    )
    flags.DEFINE_float(
        "warm_start_fraction",
        None,
        "Train the first round on this share of the images, then on all (Ash and Adams 2020).",
        **share,
    )
    flags.DEFINE_enum(
        "tasks",
        "none",
        names.TASKS,
        "A new task each round, to see the loss of plasticity (Dohare et al. 2024): random_labels, "
        "drawn for each training image, or shuffled_classes, which call each other's names.",
        **into,
    )
    flags.DEFINE_boolean("augment", False, "Flip and shift the training images.", **into)
    flags.DEFINE_integer(
        "image_size",
        None,
        "Height and width that images are brought to, bilinearly. Default: as they are stored.",
        **whole,
    )
    flags.DEFINE_string(
        "weights",
        None,
        "Weights that --model=alexnet begins with: a .safetensors or .pth file under torchvision's "
        "names, or imagenet: torchvision's own, downloaded once. Images are then normalised as "
        "ImageNet's.",
        **into,
    )
    flags.DEFINE_boolean(
        "freeze_features",
        False,
        "Leave the convolutions of --weights as they are: they are neither trained nor restarted.",
        **into,
    )
    flags.DEFINE_float(
        "pretrained_learning_rate_factor",
        1.0,
        "What the learning rate of layers with --weights is multiplied by, above 0 and at most 1.",
        **share,
    )
    flags.DEFINE_enum(
        "init",
        "uniform",
        restart_names.INITIALIZERS,
        "What useless filters are initialised with. Controls: none restarts the learning rate and "
        "no filter; slots restarts the optimizer's memory of them and no weight.",
        **into,
    )
    flags.DEFINE_enum(
        "criterion", "taylor", restart_names.CRITERIA, "What filters are scored by.", **into
    )
    flags.DEFINE_float(
        "fraction", None, "Share of each layer's filters to restart. Default: 0.1.", **share
    )
    flags.DEFINE_float(
        "threshold",
        None,
        "Restart the filters whose score is at most this share of the layer's mean, instead of a "
        "fraction.",
        **share,
    )
    flags.DEFINE_enum(
        "scope",
        "layer",
        restart_names.SELECTION_SCOPES,
        "What --fraction is a share of: each layer, or global: all layers together.",
        **into,
    )
    flags.DEFINE_float(
        "cap", None, "Largest share of one layer, with --threshold or --scope=global.", **share
    )
    flags.DEFINE_enum(
        "normalize",
        "none",
        restart_names.SELECTION_NORMALIZATIONS,
        "What scores of a layer are divided by, with --scope=global: their l2 norm or their mean.",
        **into,
    )
    flags.DEFINE_string(
        "layers",
        None,
        "Which layers to restart: a regular expression that whole names match; '.*' takes dense "
        "layers too. Default: all convolutions.",
        **into,
    )
    flags.DEFINE_integer(
        "score_every", 1, "Score one batch in so many. Changes no weight but by restarts.", **whole
    )
    flags.DEFINE_integer(
        "score_window",
        None,
        "Score only in epochs after which a restart could come within so many epochs. Default: in "
        "all epochs.",
        **whole,
    )
    flags.DEFINE_integer("min_survivors", 1, "Filters that every layer keeps at least.", **whole)
    flags.DEFINE_enum(
        "outgoing",
        "keep",
        restart_names.OUTGOING,
        "What becomes of the weights by which other layers read a restarted filter: keep, or zero: "
        "new filters change nothing until they have learned.",
        **into,
    )
    flags.DEFINE_integer(
        "grace_restarts",
        1,
        "With --outgoing=zero: by how many restarts a restarted filter is spared.",
        lower_bound=0,
        **into,
    )
    flags.DEFINE_enum(
        "second_moment",
        "zero",
        restart_names.SECOND_MOMENTS,
        "What becomes of an adaptive optimizer's second moments for new weights: zero, or the mean "
        "of the survivors'.",
        **into,
    )
    flags.DEFINE_boolean(
        "reset_norm", True, "Whether a restarted filter's channel of its norm begins anew.", **into
    )
    flags.DEFINE_boolean(
        "compensate_bias",
        False,
        "With --outgoing=zero: whether biases take up what restarted filters gave on average.",
        **into,
    )
    flags.DEFINE_enum(
        "trigger",
        "plateau",
        names.TRIGGERS,
        "What ends a round of training: plateau (of --monitor, after --patience epochs), or epochs "
        "(--round_epochs of them, so that all arms of a comparison train equally long).",
        **into,
    )
    flags.DEFINE_string(
        "monitor",
        "val_accuracy",
        "The metric whose plateau is looked for, and by which a round's best epoch is chosen.",
        **into,
    )
    flags.DEFINE_integer("patience", 3, "Epochs without improvement that make a plateau.", **whole)
    flags.DEFINE_float("min_delta", 0.0, "Smallest change that is an improvement.", **share)
    flags.DEFINE_integer("max_restarts", 3, "Restarts at most.", lower_bound=0, **into)
    flags.DEFINE_boolean(
        "stop_on_repeat",
        True,
        "End the restarts when the same filters are selected as the last time, as the paper does. "
        "Without it all arms of a comparison make --max_restarts, as --init=none and --init=slots "
        "always do.",
        **into,
    )
    flags.DEFINE_integer("round_epochs", 15, "Epochs of a round with --trigger=epochs.", **whole)
    flags.DEFINE_float("target", None, "Value of --monitor at which training ends.", **into)
    flags.DEFINE_integer("epochs", 200, "Epochs of the whole run at most.", **whole)
    flags.DEFINE_integer(
        "learning_rate_drops",
        1,
        "How many times a round lowers the learning rate before it ends: at a plateau, or evenly "
        "spread with --trigger=epochs.",
        lower_bound=0,
        **into,
    )
    flags.DEFINE_float(
        "learning_rate_factor", 0.1, "What the learning rate is then multiplied by.", **share
    )
    flags.DEFINE_integer("batch_size", 128, "Images of a training step.", **whole)
    flags.DEFINE_enum("optimizer", "sgd", names.OPTIMIZERS, "The optimizer.", **into)
    flags.DEFINE_float("learning_rate", 0.01, "Learning rate that each round begins with.", **share)
    flags.DEFINE_float("momentum", 0.9, "Momentum of sgd and rmsprop.", upper_bound=1.0, **share)
    flags.DEFINE_float(
        "weight_decay", 0.0, "Decoupled weight decay, scaled by the learning rate.", **share
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of the first weights, the order of the images and the restarts.",
        lower_bound=0, upper_bound=2**31 - 1, **into,
    )  # fmt: skip
    flags.DEFINE_boolean("mixed_precision", False, "Compute in float16 (for GPUs).", **into)
    flags.DEFINE_boolean(
        "jit_compile", None, "Compile by XLA. Default: Keras decides: on GPUs, not on CPUs.", **into
    )
    flags.DEFINE_enum(
        "strategy",
        "none",
        names.STRATEGIES,
        "Devices: none: one; mirrored: all GPUs of this machine, each batch is split over them.",
        **into,
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "Folder of a run whose baseline this one goes on from, so that runs that restart in "
        "different ways have the first round in common.",
        **into,
    )
    flags.DEFINE_enum(
        "on_nan",
        "stop",
        names.ON_NAN,
        "What to do when the loss is infinite or not a number: stop, with the last good state "
        "saved; or rollback: go back to that with the learning rate lowered by "
        "--learning_rate_factor, up to three times.",
        **into,
    )
    for name in ("momentum", "weight_decay", "min_delta", "target"):
        flags.register_validator(
            name, lambda v: v is None or math.isfinite(v), "must be a finite number", **into
        )
    for name in ("fraction", "learning_rate_factor", "warm_start_fraction"):
        flags.register_validator(
            name,
            lambda v: v is None or 0 < v < 1,
            "must lie between 0 and 1, both excluded",
            **into,
        )
    flags.register_validator(
        "learning_rate", lambda v: 0 < v < math.inf, "must be a number above 0", **into
    )
    flags.register_validator(
        "pretrained_learning_rate_factor",
        lambda v: 0 < v <= 1,
        "must be above 0 and at most 1",
        **into,
    )
    flags.register_multi_flags_validator(
        ["model", "image_size"],
        lambda v: v["model"] != "alexnet" or (v["image_size"] or 0) >= names.ALEXNET_LEAST_SIDE,
        f"AlexNet needs images of at least {names.ALEXNET_LEAST_SIDE} x {names.ALEXNET_LEAST_SIDE} "
        f"pixels, and those of the data sets are smaller: expected --image_size="
        f"{names.ALEXNET_LEAST_SIDE} or more, such as 64, or 224 as in the paper",
        **into,
    )
    flags.register_multi_flags_validator(
        ["weights", "model"],
        lambda v: v["weights"] is None or v["model"] == "alexnet",
        "--weights are for --model=alexnet",
        **into,
    )
    flags.register_multi_flags_validator(
        ["weights", "freeze_features", "pretrained_learning_rate_factor"],
        lambda v: (
            v["weights"] is not None
            or (not v["freeze_features"] and v["pretrained_learning_rate_factor"] == 1)
        ),
        "--freeze_features and --pretrained_learning_rate_factor are about layers with --weights",
        **into,
    )
    flags.register_multi_flags_validator(
        ["freeze_features", "layers"],
        lambda v: not v["freeze_features"] or v["layers"] is not None,
        "--freeze_features leaves dense layers alone to restart: name them, as in --layers=dense.*",
        **into,
    )
    flags.register_validator("label_noise", _is_share, "must lie between 0 and 1", **into)
    flags.register_validator("threshold", _is_share, "must lie between 0 and 1", **into)
    flags.register_validator(
        "cap", lambda v: v is None or 0 < v <= 1, "must be above 0 and at most 1", **into
    )
    flags.register_validator("layers", _is_pattern, "must be a regular expression", **into)
    flags.register_validator(
        "monitor",
        lambda v: v.removeprefix("val_") in ("loss", "accuracy"),
        "must be one of loss, accuracy, val_loss, val_accuracy",
        **into,
    )
    flags.register_multi_flags_validator(
        ["target", "monitor"],
        lambda v: (
            v["target"] is None or not v["monitor"].endswith("accuracy") or 0 <= v["target"] <= 1
        ),
        "the --target of an accuracy must lie between 0 and 1",
        **into,
    )
    flags.register_multi_flags_validator(
        ["jit_compile", "strategy"],
        lambda v: not v["jit_compile"] or v["strategy"] == "none",
        "--jit_compile compiles for one device: expected --strategy=none",
        **into,
    )
    flags.register_multi_flags_validator(
        ["trigger", "tasks", "warm_start_fraction"],
        lambda v: (
            v["trigger"] == "epochs" or (v["tasks"] == "none" and v["warm_start_fraction"] is None)
        ),
        "--tasks and --warm_start_fraction change what is trained on round by round, so rounds "
        "must be equally long: expected --trigger=epochs",
        **into,
    )
    flags.register_multi_flags_validator(
        ["tasks", "warm_start_fraction"],
        lambda v: v["tasks"] == "none" or v["warm_start_fraction"] is None,
        "--tasks and --warm_start_fraction are two regimes: expected one of them",
        **into,
    )
    flags.register_multi_flags_validator(
        ["tasks", "monitor"],
        lambda v: v["tasks"] != "random_labels" or not v["monitor"].startswith("val_"),
        "with --tasks=random_labels there is nothing that validation could tell: expected "
        "--monitor=accuracy or --monitor=loss",
        **into,
    )
    flags.register_multi_flags_validator(
        ["trigger", "round_epochs", "learning_rate_drops"],
        lambda v: v["trigger"] != "epochs" or v["round_epochs"] > v["learning_rate_drops"],
        "--round_epochs must be more than --learning_rate_drops",
        **into,
    )


def define_place_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags that say where a run is written, which are no part of its settings."""
    flags.DEFINE_string("logdir", "tf_logs", "Folder of all runs.", flag_values=values)
    flags.DEFINE_string(
        "run_name", None, "Folder of this run in it. Default: a name is made.", flag_values=values
    )
    flags.DEFINE_boolean(
        "resume",
        True,
        "Go on with the run of that name where it was killed. Without it a name that is taken is "
        "an error.",
        flag_values=values,
    )
    flags.register_validator(
        "run_name",
        lambda v: v is None or is_plain_name(v),
        "must be a plain name of letters, digits and _.=+-, such as mininet-uniform-0",
        flag_values=values,
    )


def _is_share(value: float | None) -> bool:
    return value is None or 0 <= value <= 1


def _is_pattern(value: str | None) -> bool:
    try:
        return value is None or bool(re.compile(value))
    except re.error:
        return False
