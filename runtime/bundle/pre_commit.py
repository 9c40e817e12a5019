"""The pre-commit hook, which checks every bundle that a repository tracks. Run it there with `python -m`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runtime.bundle.manifest import MANIFEST
from runtime.bundle.opening import open_bundle
from runtime.errors import EdgeproofError
from runtime.terminal.log import log

SCHEMA = b"edgeproof.bundle/"
"""A manifest of edgeproof contains this, even if it is damaged; other files of that name do not."""


def tracked_bundles() -> list[Path]:
    """Return the directories with a manifest of edgeproof that git tracks, or a tracked manifest that is missing."""
    words = ["git", "ls-files", "-z", "--", MANIFEST, f"*/{MANIFEST}"]
    listed = subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - the git that runs the hook
    manifests = [Path(name.decode(errors="surrogateescape")) for name in listed.stdout.split(b"\0") if name]
    return [path.parent for path in manifests if not path.is_file() or SCHEMA in path.read_bytes()]


def main() -> int:
    """Check every bundle, report the faults, and return the exit code."""
    faults = 0
    for path in tracked_bundles():
        try:
            open_bundle(path)
        except EdgeproofError as error:
            faults += 1
            log.error(error.message)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
