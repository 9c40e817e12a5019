"""The methods, by the names that recipes use."""

from __future__ import annotations

from pipeline.methods.adaad import ADAAD
from pipeline.methods.method import Method, View
from pipeline.methods.pgd_at import PGD_AT

METHODS: dict[str, Method] = {"pgd-at": PGD_AT, "adaad": ADAAD}

__all__ = ["METHODS", "Method", "View"]
