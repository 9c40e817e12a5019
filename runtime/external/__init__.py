"""A judge in a separate process: any runner that reads images on stdin and writes logits to stdout."""

BACKEND, PROVIDER = "command", "process"
"""The names of a judge process as a backend and provider. Its card has the name that the judge reports instead."""
