"""A few of the faults of `python -m tests.faults`, in the fast tier; and that the tool itself sees what is wrong."""
