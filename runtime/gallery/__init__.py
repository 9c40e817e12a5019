"""A few images of a run to be looked at: chosen, kept and read back."""
