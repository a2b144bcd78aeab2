"""Runs a study on a Ray cluster of two nodes, one of which is killed, and compares the report.

    python -m tests.soak.ray_cluster

Both nodes are on this machine. One is killed when both baselines have completed three epochs, and
its run must resume on the other. A second study runs through `ray://`. Every file that these
make of their runs must be that of the same study without a cluster, byte for byte.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from tests.soak.kill_study import compare

COMMAND = (
    *(sys.executable, "-m", "kerasrestart.study", "--study_name=tiny", "--dataset=shapes"),
    *("--train_examples=200", "--batch_size=50", "--round_epochs=14", "--max_restarts=1"),
    *("--arms=none,uniform", "--seeds=0-1"),
)
STUDY = pathlib.Path("tf_logs") / "tiny"
CLIENT_PORT = 23471
ROOT = str(pathlib.Path(__file__).resolve().parents[2])


def main() -> int:
    """Runs both studies; the status is 1 if their reports differ."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # rounding errors depend on the number
    os.environ["PYTHONPATH"] = ROOT  # the nodes import the package from here
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as folder:
        local, on_ray = pathlib.Path(folder, "local"), pathlib.Path(folder, "ray")
        assert _start(local, ()).wait() == 0, "the undisturbed study failed"
        head = {"num_cpus": 0, "ray_client_server_port": CLIENT_PORT}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            first = cluster.add_node(num_cpus=1)
            cluster.add_node(num_cpus=1)
            study = _start(on_ray, ("--executor=ray", f"--ray_address={cluster.address}"))
            while study.poll() is None and _epochs(on_ray) < 3:
                time.sleep(0.05)
            assert not list((on_ray / STUDY).glob("*/run.json")), "too late: a baseline has ended"
            cluster.remove_node(first, allow_graceful=False)
            print("a node is killed", flush=True)
            status = study.wait()
            print((on_ray / "log").read_text(), flush=True)
            assert status == 0, "the study on the cluster failed"
            resumed = [
                log.stem
                for log in (on_ray / STUDY / "logs").glob("*.log")
                if re.search("resumed after epoch [0-9]+$", log.read_text(), re.MULTILINE)
            ]
            print(f"resumed: {resumed}", flush=True)
            through = _start(
                pathlib.Path(folder, "client"),
                ("--executor=ray", f"--ray_address=ray://127.0.0.1:{CLIENT_PORT}"),
            )
            assert through.wait() == 0, "the study through ray:// failed"
        finally:
            cluster.shutdown()
        # With the same command line in each report.
        for place in (on_ray, pathlib.Path(folder, "client")):
            assert _start(place, ("--collect",)).wait() == 0
        differences = [
            f"{place}: {name}"
            for place in ("ray", "client")
            for name in compare(local / STUDY, pathlib.Path(folder, place) / STUDY)
        ]
    print("; ".join(differences) or "the same report, byte for byte")
    return int(bool(differences) or len(resumed) != 1)


def _epochs(place: pathlib.Path) -> int:
    """The epochs that both baselines have completed."""
    histories = [
        len(path.read_text().splitlines()) - 1
        for path in (place / STUDY).glob("*-baseline-*/history.csv")
    ]
    return min(histories) if len(histories) == 2 else 0


def _start(place: pathlib.Path, more: tuple[str, ...]) -> subprocess.Popen:
    place.mkdir(exist_ok=True)
    with (place / "log").open("w") as log:
        return subprocess.Popen((*COMMAND, *more), cwd=place, stdout=log, stderr=log)


if __name__ == "__main__":
    sys.exit(main())
