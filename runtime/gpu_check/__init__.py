"""Compares a GPU's engines with the CPU, image by image."""
