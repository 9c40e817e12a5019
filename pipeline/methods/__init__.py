"""The training methods, by their names in recipes."""

from __future__ import annotations

from pipeline.methods.adaad import ADAAD
from pipeline.methods.adaiad import ADAIAD
from pipeline.methods.adr import ADR
from pipeline.methods.akd import AKD
from pipeline.methods.ard import ARD
from pipeline.methods.iad import IAD
from pipeline.methods.method import Method, Schedule, View
from pipeline.methods.pgd_at import PGD_AT
from pipeline.methods.rslad import RSLAD
from pipeline.methods.trades import TRADES

METHODS: dict[str, Method] = {
    "pgd-at": PGD_AT,
    "trades": TRADES,
    "ard": ARD,
    "iad": IAD,
    "rslad": RSLAD,
    "akd": AKD,
    "adaad": ADAAD,
    "adaiad": ADAIAD,
    "adr": ADR,
}

__all__ = ["METHODS", "Method", "Schedule", "View"]
