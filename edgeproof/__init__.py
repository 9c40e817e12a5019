"""Distil, export and judge robust image classifiers from Python. Each name in `__all__` is loaded when it is used.

Importing this package also makes Python find edgeproof's own packages first, wherever the process was started.

Users may have files or folders named `runtime`, `export` or `pipeline`. A finder that runs before all others therefore
looks for these three names beside this package only. It does not handle any other name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from edgeproof import methods
    from edgeproof.exporting import export
    from edgeproof.judging import Verdict, attack, verify

__all__ = ["Verdict", "attack", "export", "methods", "verify"]

LIES_IN = {
    "Verdict": "edgeproof.judging",
    "attack": "edgeproof.judging",
    "export": "edgeproof.exporting",
    "verify": "edgeproof.judging",
}
"""The module of each public name that is not itself a module."""
OF_TRAINING = ("export", "methods")
"""The names that need PyTorch, which the extra `train` installs."""

HOME = str(Path(__file__).resolve().parents[1])
"""The directory of the packages: the environment's site-packages, or a checkout."""
PACKAGES = ("runtime", "export", "pipeline")


class OurPackages:
    """Finds our packages in HOME; a finder of `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the location of one of our packages; None for any other module."""
        return PathFinder.find_spec(name, [HOME]) if name in PACKAGES else None


def find_ours_first() -> None:
    """Put our finder before all others, only once even if this is called again."""
    if OurPackages not in sys.meta_path:
        sys.meta_path.insert(0, OurPackages)


def strangers() -> list[str]:
    """Return the modules with our names that this process has already imported from elsewhere."""
    imported = {name: getattr(sys.modules[name], "__file__", None) for name in PACKAGES if name in sys.modules}
    ours = {name: Path(HOME, name, "__init__.py") for name in imported}
    return [f"{name} ({file})" for name, file in imported.items() if not file or Path(file).resolve() != ours[name]]


find_ours_first()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgeproof' has no attribute {name!r}")
    try:
        module = import_module(LIES_IN.get(name, f"edgeproof.{name}"))
    except ImportError as error:
        if name not in OF_TRAINING:
            raise
        from runtime.errors import missing_extra

        raise missing_extra(f"edgeproof.{name}", ("train",), error) from error
    return getattr(module, name) if name in LIES_IN else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
