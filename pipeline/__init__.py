"""Trains a robust student: data, networks, methods, the inner search, and the export to a bundle."""
