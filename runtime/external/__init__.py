"""A judge that is a process of its own: anyone's runner, asked over its stdin and stdout."""
