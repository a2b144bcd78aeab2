"""Kills and restarts a study, and compares its report with that of an undisturbed one.

    python -m tests.soak.kill_study --kills=6

A small study of real runs gets SIGKILL at random moments, its runs with it, and is started again
by the same command line until it ends. Then every file that a study makes of its runs (report,
tables, figures, records for TensorBoard's HParams tab) must be that of the undisturbed study, byte
for byte.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

COMMAND = (
    *(sys.executable, "-m", "kerasrestart.study", "--study_name=killed", "--dataset=shapes"),
    *("--train_examples=400", "--batch_size=50", "--round_epochs=4", "--max_restarts=2"),
    *("--arms=none,uniform,random", "--seeds=0-1", "--workers=2"),
)
STUDY = pathlib.Path("tf_logs") / "killed"


def main() -> int:
    """Runs both studies; the status is 1 if their reports differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6, help="How often the study is killed.")
    parser.add_argument("--seed", type=int, default=0, help="Decides when.")
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = pathlib.Path(folder, "undisturbed"), pathlib.Path(folder, "killed")
        since = time.monotonic()
        assert _study(undisturbed) == 0, "the undisturbed study failed"
        length = time.monotonic() - since
        print(f"undisturbed: {length:.0f} s", flush=True)
        done = 0
        while done < chosen.kills:
            # The last kill must come before the study can have ended.
            delay = rng.uniform(0, 1.6 * length / chosen.kills)
            status = _study(killed, kill_after=delay)
            runs = len(list((killed / STUDY).glob("*/run.json")))
            if status == 0:
                print(f"ended before kill {done + 1}", flush=True)
                break
            assert status == -signal.SIGKILL, f"the study ended with status {status}"
            done += 1
            print(f"kill {done} after {delay:.1f} s; records of {runs} runs", flush=True)
        assert _study(killed) == 0, "the study could not be resumed"
        differences = compare(undisturbed / STUDY, killed / STUDY)
    print(f"killed {done} times: {'; '.join(differences) or 'the same report, byte for byte'}")
    return int(bool(differences) or not done)


def _study(place: pathlib.Path, kill_after: float | None = None) -> int:
    """Runs the study in a folder; returns its status, negative where it was killed."""
    place.mkdir(exist_ok=True)
    root = str(pathlib.Path(__file__).resolve().parents[2])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": root}
    with (place / "log").open("a") as log:
        process = subprocess.Popen(
            COMMAND, cwd=place, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            return process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def compare(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Names of files in which two studies differ, without those of their runs."""
    files = [
        {path: (folder / path).read_bytes() for path in _made(folder)} for folder in (one, other)
    ]
    names = files[0].keys() | files[1].keys()
    return sorted(str(name) for name in names if files[0].get(name) != files[1].get(name))


def _made(folder: pathlib.Path) -> list[pathlib.Path]:
    made = [*folder.glob("*"), *folder.glob("tables/*"), *folder.glob("figures/*")]
    made += folder.glob("hparams/**/*")
    # runs.csv holds seconds.
    return [p.relative_to(folder) for p in made if p.is_file() and p.name != "runs.csv"]


if __name__ == "__main__":
    sys.exit(main())
