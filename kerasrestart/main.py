"""`python -m kerasrestart.main`: trains a network, restarts its useless filters on plateau, and reports each round."""

from kerasrestart.experiments.run.command import entry_point

if __name__ == "__main__":
    entry_point()
