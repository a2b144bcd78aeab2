"""The files of a run: its folder, record, history, scores and table."""
