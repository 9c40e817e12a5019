"""A judge that is a process of its own: anyone's runner, asked over its stdin and stdout."""

BACKEND, PROVIDER = "command", "process"
"""How a judge's process is called where other backends and their providers are; its card has its own name."""
