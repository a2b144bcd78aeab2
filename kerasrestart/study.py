"""`python -m kerasrestart.study`: compares ways to restart, at equal budget and over several seeds, and writes the report."""

from kerasrestart.experiments.study.command import entry_point

if __name__ == "__main__":
    entry_point()
