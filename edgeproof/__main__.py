"""The program `edgeproof`, also run as `python -m edgeproof`."""

import os
import sys

from edgeproof import strangers


def main() -> None:
    """Run the command line. The processes that it starts find our packages first, too."""
    if found := strangers():
        sys.stderr.write(
            f"error: this Python has imported other modules by edgeproof's names: {', '.join(found)}\n"
            "hint: a sitecustomize.py, usercustomize.py or .pth file does so; start without it, or rename the modules\n"
        )
        sys.exit(4)
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # from Python 3.11 on, they do not search the working directory
    from runtime.cli import main as command_line

    command_line()


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # `-m` puts the working directory there
    __spec__ = None  # a process that multiprocessing spawns then runs this file first, as that of any program
    main()
