"""The gallery of a run: a few images for people to look at."""
