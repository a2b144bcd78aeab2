"""The pages of a run: figures, tables, HTML."""
