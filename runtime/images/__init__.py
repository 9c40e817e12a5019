"""Evaluation images and their labels: reads them from files and folders, and keeps large sets on disk."""

from pathlib import Path

DATA_ROOT = Path("data")
"""The directory of image sets that are known by name."""
