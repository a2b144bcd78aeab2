"""`python -m kerasrestart`: lists the commands, or starts one."""

from kerasrestart.experiments.commands import entry_point

if __name__ == "__main__":
    entry_point()
