"""What lets a run go on after it was killed: its state in one file, and the folder's lock."""
