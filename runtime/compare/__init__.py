"""Runs side by side: what each measured, and image by image what the first and another make of the same images."""
