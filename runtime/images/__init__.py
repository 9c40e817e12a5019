"""Evaluation images and their labels: found, read, decoded, kept out of memory."""
