"""`RayExecutor` with processes that do nothing but end; tests.soak.ray_cluster kills a node."""

import importlib.util
import pathlib
import sys
import time

import pytest

from kerasrestart.experiments.study.executors import RayExecutor
from kerasrestart.experiments.study.grid import PlanError

ROOT = pathlib.Path(__file__).resolve().parents[3]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


@needs_ray
def test_runs_end_fail_and_are_stopped_on_ray(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # Ray's workers import the package from here
    executor = RayExecutor(None, num_cpus=1, num_gpus=0)
    try:
        assert executor.slots >= 1
        words = "import os; print(os.getcwd(), os.environ['TF_NUM_INTRAOP_THREADS'])"
        good = executor.submit(["-c", words], tmp_path / "logs" / "good.log")
        assert good.result(60).reason is None
        assert (tmp_path / "logs" / "good.log").read_text() == f"{pathlib.Path.cwd()} 1\n"
        bad = executor.submit(["-c", "exit('error: the disk is full')"], tmp_path / "bad.log")
        assert bad.result(60).reason == "the disk is full"
        words = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        executor.submit(["-c", words], log := tmp_path / "long.log")
        deadline = time.monotonic() + 30
        while not log.exists() or not log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        since = time.monotonic()
        executor.stop()
    assert time.monotonic() - since < 30  # the run sleeps for 60
    process = pathlib.Path("/proc", log.read_text().strip())
    assert not process.exists()


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "ray://127.0.0.1"])
def test_an_address_without_a_cluster_is_refused(address):
    with pytest.raises(PlanError, match="--ray_address must be that of a Ray cluster"):
        RayExecutor(address, num_cpus=1, num_gpus=0)


def test_without_ray_the_executor_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PlanError, match=r"kerasrestart\[ray\]"):
        RayExecutor(None, num_cpus=1, num_gpus=0)
