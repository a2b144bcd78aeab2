"""Training on several replicas against training on one device."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# A run on several devices is compared with one on one device in experiments/end_to_end, always.
pytestmark = pytest.mark.slow

SCRIPT = pathlib.Path(__file__).with_name("replica_checks.py")
CHECKS = SCRIPT.read_text().partition("\nCHECKS = [\n")[2].partition("]")[0]


@pytest.fixture(scope="module")
def outcomes():
    root = str(SCRIPT.parents[2])
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS.replace(",", "").split())
def test_several_replicas(outcomes, check):
    assert outcomes[check] == ""
