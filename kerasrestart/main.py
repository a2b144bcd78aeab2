"""`python -m kerasrestart.main`: trains a network and restarts its useless filters."""

from kerasrestart.experiments.run.command import entry_point

if __name__ == "__main__":
    entry_point()
