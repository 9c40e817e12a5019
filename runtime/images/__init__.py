"""Evaluation images and their labels: found, read, decoded, kept out of memory."""

from pathlib import Path

DATA_ROOT = Path("data")
"""Where sets known by name lie."""
