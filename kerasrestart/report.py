"""`python -m kerasrestart.report`: writes the report of a run as one HTML file."""

from kerasrestart.experiments.report.command import entry_point

if __name__ == "__main__":
    entry_point()
