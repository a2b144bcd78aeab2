"""Runs a study on a Ray cluster of two nodes, one of which is killed, and compares the report.

    python -m tests.soak.ray_cluster

Both nodes are on this machine. Every file that the study makes of its runs must be that of the
same study without a cluster, byte for byte.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from tests.soak.kill_study import compare

COMMAND = (
    *(sys.executable, "-m", "kerasrestart.study", "--study_name=tiny", "--dataset=shapes"),
    *("--train_examples=200", "--batch_size=50", "--round_epochs=1", "--max_restarts=1"),
    *("--arms=none,uniform", "--seeds=0-1"),
)
STUDY = pathlib.Path("tf_logs") / "tiny"
ROOT = str(pathlib.Path(__file__).resolve().parents[2])


def main() -> int:
    """Runs both studies; the status is 1 if their reports differ."""
    os.environ["PYTHONPATH"] = ROOT  # the nodes import the package from here
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as folder:
        local, on_ray = pathlib.Path(folder, "local"), pathlib.Path(folder, "ray")
        assert _start(local, ()).wait() == 0, "the undisturbed study failed"
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            first = cluster.add_node(num_cpus=1)
            cluster.add_node(num_cpus=1)
            study = _start(on_ray, ("--executor=ray", f"--ray_address={cluster.address}"))
            # Both baselines run, one on each node.
            while len(list((on_ray / STUDY).glob("logs/*.log"))) < 2 and study.poll() is None:
                time.sleep(0.2)
            time.sleep(5)
            records = len(list((on_ray / STUDY).glob("*/run.json")))
            cluster.remove_node(first, allow_graceful=False)
            print(f"a node is killed; {records} records", flush=True)
            status = study.wait()
        finally:
            cluster.shutdown()
        print((on_ray / "log").read_text(), flush=True)
        assert status == 0, "the study on the cluster failed"
        differences = compare(local / STUDY, on_ray / STUDY)
    print("; ".join(differences) or "the same report, byte for byte")
    return int(bool(differences))


def _start(place: pathlib.Path, more: tuple[str, ...]) -> subprocess.Popen:
    place.mkdir()
    with (place / "log").open("w") as log:
        return subprocess.Popen((*COMMAND, *more), cwd=place, stdout=log, stderr=log)


if __name__ == "__main__":
    sys.exit(main())
