"""A judge in a separate process: any runner that reads images on stdin and writes logits to stdout."""

BACKEND, PROVIDER = "command", "process"
"""How a judge's process is called where other backends and their providers are; its card has its own name."""
