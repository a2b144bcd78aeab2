"""`python -m kerasrestart.study`: compares ways to restart over several seeds."""

from kerasrestart.experiments.study.command import entry_point

if __name__ == "__main__":
    entry_point()
