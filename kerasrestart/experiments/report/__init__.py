"""Reports: figures, tables, HTML pages, output for the terminal."""
