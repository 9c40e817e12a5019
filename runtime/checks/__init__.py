"""The checks, which test whether the figures of a run can be believed."""
