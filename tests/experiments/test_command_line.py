"""The command lines: help, and flags that are refused in one line before any work."""

import os
import pathlib
import platform
import re
import subprocess
import sys

import pytest

import kerasrestart
from kerasrestart.experiments.command_line import set_up_tensorflow
from kerasrestart.experiments.run import command
from kerasrestart.experiments.setting import SettingError
from kerasrestart.experiments.settings import SETTINGS
from kerasrestart.experiments.study import command as study_command

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
ROOT = pathlib.Path(kerasrestart.__file__).parents[1]


def python(*words, cwd, code=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(arguments, capsys):
    """The line that a run's command line is refused with."""
    try:
        command.read_settings(command.PROGRAM.parse(arguments))
    except SettingError as error:
        return f"error: {error}"
    except SystemExit as ended:
        assert ended.code == 2  # noqa: PT017 - either kind of refusal is right
        return capsys.readouterr().err
    raise AssertionError(f"accepted: {arguments}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=lenet"], "mininet"),
        (["--dataset=mnist"], "cifar10"),
        (["--dataset=folder:"], "folder:PATH"),
        (["--dataset=folder:birds"], "--image_size must be their height and width in pixels"),
        (["--model=nets.py"], "or MODULE:FUNCTION. Received: 'nets.py'"),
        (["--callback=mine"], "--callback must be MODULE:FUNCTION. Received: 'mine'"),
        (["--select=a:b", "--cap=0.5"], "--cap is not an option of --select=a:b"),
        (["--init=unifrom"], "Did you mean uniform?"),
        (["--criterion=entropy"], "taylor"),
        (["--fraction=0"], "--fraction must be a number between 0 and 1"),
        (["--fraction=1"], "--fraction must be a number between 0 and 1"),
        (["--fraction=some"], "--fraction must be a finite number"),
        (["--outgoing=zap"], "keep"),
        (["--select=below_mean", "--fraction=2"], "--fraction must be a number between 0 and 1"),
        (["--select=worst"], "global_fraction"),
        (["--select=below_mean", "--cap=-1"], "--cap must be"),
        (["--select=below_mean", "--cap=0"], "--cap must be"),
        (["--cap=0.5"], "--cap is not an option of --select=fraction"),
        (["--select=below_mean", "--normalize=l2"], "--normalize is not an option of --select=b"),
        (["--normalize=max"], "l2"),
        (["--compensate_bias"], "--outgoing must be 'zero' beside --compensate_bias=True"),
        (["--init=slots", "--outgoing=zero"], "beside --init=slots, which changes no weight"),
        (["--init=zeros", "--outgoing=zero"], "never learn again"),
        (
            ["--criterion=reversed_taylor", "--select=below_mean"],
            "--criterion must be one that is not reversed, or --select=fraction",
        ),
        (["--layers=("], "--layers must be a regular expression"),
        (["--min_survivors=0"], "--min_survivors must be"),
        (["--grace_restarts=-1"], "--grace_restarts must be"),
        (["--second_moment=half"], "survivors"),
        (["--score_every=0"], "--score_every must be"),
        (["--score_window=0"], "--score_window must be"),
        (["--trigger=moon"], "plateau"),
        (["--monitor=val_f2"], "val_loss"),
        (["--patience=0"], "--patience must be"),
        (["--min_delta=-1"], "--min_delta must be"),
        (["--max_restarts=-1"], "--max_restarts must be"),
        (["--epochs=0"], "--epochs must be a whole number, 1 or more"),
        (["--epochs=ten"], "--epochs must be a whole number, 1 or more. Received: 'ten'"),
        (
            ["--trigger=epochs", "--round_epochs=2", "--learning_rate_drops=2"],
            "--round_epochs must be more than --learning_rate_drops=2",
        ),
        (["--batch_size=0"], "--batch_size must be"),
        (["--optimizer=sdg"], "Did you mean sgd?"),
        (["--learning_rate=0"], "--learning_rate must be a finite number, above 0"),
        (["--learning_rate=nan"], "--learning_rate must be"),
        (["--target=nan"], "--target must be"),
        (["--monitor=val_accuracy", "--target=75"], "--target of an accuracy must be between 0"),
        (["--learning_rate_factor=1"], "--learning_rate_factor must be"),
        (["--momentum=1.5"], "--momentum must be"),
        (["--weight_decay=-1"], "--weight_decay must be"),
        (["--seed=-1"], "--seed must be"),
        (["--train_examples=0"], "--train_examples must be"),
        (["--run_name=../elsewhere"], "plain name"),
        (["--run_name=/etc/elsewhere"], "plain name"),
        (["--label_noise=1.5"], "--label_noise must be"),
        (["--warm_start_fraction=1"], "--warm_start_fraction must be"),
        (
            ["--warm_start_fraction=0.5"],
            "must be equally long, with --trigger=epochs",
        ),
        (["--tasks=juggling"], "random_labels"),
        (["--tasks=random_labels", "--trigger=epochs"], "--monitor must be accuracy or loss"),
        (
            ["--tasks=shuffled_classes", "--warm_start_fraction=0.5", "--trigger=epochs"],
            "must not be given together",
        ),
        (["--tasks=class_subsets", "--trigger=epochs"], "--monitor must be accuracy or loss"),
        (["--model=resnet20", "--width=0.5"], "--model must be mininet for --width"),
        (["--activation=gelu"], "one of relu, leaky_relu, crelu"),
        (["--activation=crelu", "--model=resnet20"], "--activation must be relu or leaky_relu"),
        (["--remedy=head_rest"], "Did you mean head_reset?"),
        (["--shrink=1.1"], "--shrink must be"),
        (["--beta_2=1"], "--beta_2 must be"),
        (["--epsilon=0"], "--epsilon must be"),
        (["--l2_init=-1"], "--l2_init must be"),
        (["--eval_examples=0"], "--eval_examples must be"),
        (["--image_size=0"], "--image_size must be"),
        (["--model=alexnet"], "--image_size must be 63 pixels or more, such as 64"),
        (["--model=alexnet", "--image_size=62"], "--image_size must be 63 pixels or more"),
        (["--weights=imagenet"], "--model must be alexnet for --weights"),
        (
            ["--model=alexnet", "--image_size=63", "--freeze_features"],
            "layers that have weights: --weights must",
        ),
        (
            ["--model=alexnet", "--image_size=63", "--freeze_features", "--weights=w"],
            "as in --layers=dense",
        ),
        (["--pretrained_learning_rate_factor=0.1"], "layers that have weights: --weights must"),
        (["--pretrained_learning_rate_factor=2"], "above 0 and at most 1"),
        (["--data_dir=two\nlines"], "--data_dir must be a text of one line in UTF-8"),
        (["--on_nan=pray"], "rollback"),
        (["--precision=float8"], "mixed_bfloat16"),
        (["--strategy=multiworker"], "mirrored"),
        (
            ["--jit_compile", "--strategy=mirrored"],
            "--strategy must be none. Received: ",
        ),
        (["--fractoin=0.1"], "--fractoin is not a flag of kerasrestart.main. Did you mean --fract"),
        (["--epochs"], "--epochs"),
        (
            ["--flagfile=no_such_file"],
            "error: --flagfile must be a file of flags. Received: 'no_such_file': No such file or "
            "directory\n",
        ),
        (["--flagfile=."], "file of flags. Received: '.': Is a directory\n"),
        (["--flagfile"], "error: --flagfile with no argument\n"),
        (["left", "over"], "Received: 'left'"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(arguments, message, capsys):
    line = refusal(arguments, capsys)
    assert message in line
    assert line.startswith("error: ")
    assert line.count("\n") <= 1


@pytest.mark.parametrize("arguments", [["--model=lenet"], ["--cap=0.5"], ["left", "over"]])
def test_a_refused_command_line_writes_nothing_and_exits_with_2(arguments, tmp_path):
    done = python("-m", "kerasrestart.main", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_flagfile_in_a_flagfile_that_does_not_exist_is_named(tmp_path, capsys):
    (tmp_path / "one.flags").write_text(f"--flagfile={tmp_path}/two.flags\n")
    line = refusal([f"--flagfile={tmp_path}/one.flags"], capsys)
    assert f"Received: '{tmp_path}/two.flags': No such file" in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("train_examples must be 1. Received: 2"), "--train_examples must be 1"),
        (ValueError("logdir must not begin with '~'"), "--logdir must not begin with '~'"),
        (ValueError("--logdir must be a folder"), "--logdir must be a folder"),
        (ValueError("model.npz must hold arrays"), "model.npz must hold arrays"),
        (ValueError("birds must have images"), "birds must have images"),
        (OSError(28, "No space left on device", "model"), "[Errno 28] No space left"),
    ],
)
def test_an_error_about_an_argument_names_the_flag(error, line, capsys, monkeypatch):
    def fails(parsed):
        raise error

    monkeypatch.setattr(sys, "argv", ["main"])
    with pytest.raises(SystemExit):
        command.PROGRAM.start(fails)
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_a_flagfile_that_is_not_text_is_refused_in_one_line(tmp_path, capsys):
    file = tmp_path / "wrong.flags"
    file.write_bytes(b"--model=\xff\xfe")
    line = refusal([f"--flagfile={file}"], capsys)
    assert "A flagfile must be text in UTF-8" in line
    assert f"(flags were also read from {file})" in line


def test_a_flagfile_of_anything_is_refused_in_one_short_line_that_names_it(tmp_path, capsys):
    file = tmp_path / "wrong.flags"
    for content in ("{" * 100_000, "--" + "9" * 5000 + "=1", "--batch_size=" + "9" * 5000):
        file.write_text(content)
        line = refusal(["--flagfile", str(file)], capsys)
        assert len(line.splitlines()) == 1
        assert len(line) < 1100
        assert str(file) in line or line.startswith("error: --batch_size must be")


def test_flags_are_checked_without_tensorflow(tmp_path):
    code = (
        "import sys; sys.argv = ['main', '--cap=0.5']\n"
        "import kerasrestart.study\n"
        "from kerasrestart.main import entry_point\n"
        "try: entry_point()\n"
        "finally: print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("typed", ["--help", "-h"])
def test_help_lists_every_flag_once_in_groups_and_wraps_between_words(typed, tmp_path):
    done = python("-m", "kerasrestart.main", "--seed=wrong", typed, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("Trains a network, restarts its useless filters")
    flags = re.findall(r"^  --(?:\[no\])?(\w+)", done.stdout, re.MULTILINE)
    assert sorted(flags) == sorted([*SETTINGS, *command.PLACE, "verbosity"])
    groups = re.findall(r"^(\w+):$", done.stdout, re.MULTILINE)
    assert groups == ["data", "model", "restart", "remedy", "schedule", "training", "run"]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_into_a_pipe_that_is_closed_says_nothing(tmp_path):
    code = f"{sys.executable} -m kerasrestart.study --help | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_the_help_of_a_study_leaves_out_the_flags_that_it_refuses(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = study_command.PROGRAM.help()
    flags = set(re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE))
    assert flags >= {"network", "arms", "seeds", "fraction", "logdir"}
    assert not flags & {"model", "seed", "baseline", "trigger", "stop_on_repeat", "target"}
    assert text.index("\nstudy:\n") < text.index("\ndata:\n")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 0, "study   compares"),
        (["--help"], 0, "report  writes"),
        (["--version"], 0, f"kerasrestart {kerasrestart.__version__}"),
        (["main", "--version"], 0, f"kerasrestart {kerasrestart.__version__}"),
        (["report", "--help"], 0, "Writes the report of a run"),
        (["mian"], 2, "Did you mean main?"),
        (["report"], 2, "folder of a run"),
    ],
)
def test_the_package_lists_and_starts_its_commands(words, status, text, tmp_path):
    done = python("-m", "kerasrestart", *words, cwd=tmp_path)
    assert done.returncode == status
    assert text in (done.stderr if status else done.stdout)


@pytest.mark.parametrize("module", ["main", "study", "report"])
def test_a_console_script_shows_the_help_of_its_command(module, tmp_path):
    code = f"import sys\nfrom kerasrestart.{module} import entry_point\nsys.exit(entry_point())"
    done = python("-c", code, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"usage: python -m kerasrestart.{module} [flags]" in done.stdout


@pytest.mark.parametrize(
    ("typed", "precision"),
    [("--mixed_precision", "mixed_float16"), ("--nomixed_precision", "float32")],
)
def test_the_former_flag_for_mixed_precision_warns_and_sets_precision(typed, precision, capsys):
    parsed = command.PROGRAM.parse([typed])
    assert parsed.given == {"precision": precision}
    assert "--mixed_precision is now --precision" in capsys.readouterr().err


def test_a_repeated_flag_of_a_study_adds_to_those_before():
    parsed = study_command.PROGRAM.parse(["--arm=a:init=he,cap=1", "--arm=b:init=xavier"])
    assert parsed.values["arm"] == ["a:init=he,cap=1", "b:init=xavier"]
    assert parsed.values["network"] == ["mininet"]
    assert study_command.PROGRAM.parse(["--network=alexnet"]).values["network"] == ["alexnet"]


def test_a_repeated_callback_adds_to_those_before_and_is_repeated_by_its_flag():
    parsed = command.PROGRAM.parse(["--callback=a:b", "--callback=c.py:d"])
    settings = command.read_settings(parsed)
    assert settings.callback == "a:b,c.py:d"
    assert command.read_settings(command.PROGRAM.parse(settings.to_flags())) == settings


@pytest.mark.parametrize(
    ("machine", "given", "then"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_onednn_is_turned_on_where_it_helps_unless_it_is_set(monkeypatch, machine, given, then):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv(ONEDNN, given or "")
    if given is None:
        monkeypatch.delenv(ONEDNN)
    set_up_tensorflow()
    assert os.environ.get(ONEDNN) == then
