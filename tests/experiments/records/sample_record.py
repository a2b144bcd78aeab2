"""A valid `run.json` with little in it, for tests that care about a part of it."""


def sample_record(**parts):
    """The record of an ended run without rounds; `parts` replace its entries."""
    return {
        "settings": {},
        "versions": {},
        "environment": {},
        "data": {},
        "weights": None,
        "events": [],
        "rounds": [],
        "rollbacks": [],
        "finished": "max_restarts=2 reached",
        "table": [],
        "timing": {"started": "2020-01-01T00:00:00", "seconds": 1.0, "folder": "/elsewhere"},
        **parts,
    }
