"""Verdicts as signed evidence that others' tools read, and what a device asks of it before it takes a bundle."""
