"""A training run: its loop, its directory, its state, its teacher, its evaluation."""
