"""A bundle on disk, and its model card."""
