"""A bundle written to disk, and its model card."""
