"""When filters are restarted, which ones, with what, and how."""
