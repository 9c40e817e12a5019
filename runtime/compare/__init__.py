"""Comparisons of finished runs: their figures side by side, and image by image against the first run."""
