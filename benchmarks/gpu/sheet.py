"""How a part is asked, and the sheet on which it notes what it finds."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from runtime.files import write_atomic

LONGEST = 500
"""Signs of what is printed."""


class Sheet:
    """Figures that are on the disk as soon as they are known: who is ended before the end leaves them."""

    def __init__(self, path: Path | None, seconds: float) -> None:
        self.figures: dict[str, Any] = {}
        self._path, self._end = path, time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()

    def note(self, **figures: Any) -> None:
        """Note figures by name, and print them."""
        self.figures |= figures
        print(json.dumps(figures)[:LONGEST], flush=True)
        if self._path:
            write_atomic(self._path, (json.dumps(self.figures, indent=2) + "\n").encode())


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that all parts share."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--seconds", type=float, default=120.0, help="what it may take")
    options.add_argument("--out", type=Path, help="where the figures go, as JSON")
    options.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    return options
