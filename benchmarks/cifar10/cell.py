"""One cell: trained, exported, and attacked as what was exported, by the commands that a user types."""

import subprocess
import sys
from pathlib import Path

from benchmarks.cifar10.record import check_bundle, record_of
from benchmarks.cifar10.study import Cell, Scale, Study, recipe_of
from pipeline.runs.directory import SUMMARY
from runtime.bundle.manifest import MANIFEST
from runtime.commands.judging import EXIT_CODES
from runtime.files import write_atomic
from runtime.records.report import REPORT
from runtime.spec import to_json

RECIPE, RUN, BUNDLE, RECORD = "recipe.toml", "run", "bundle", "record.json"
CELLS = "cells"
"""The directory of all records."""
IN_DOUBT = EXIT_CODES["inconclusive"]
"""Exit code of a verify whose report holds reasons not to believe it: it is kept, and the table says them."""


def run_cell(study: Study, scale: Scale, cell: Cell, data: Path, teacher: Path, place: Path) -> None:
    """Do what is left of a cell in its directory `place`; what is finished is never repeated.

    Raises:
        CalledProcessError: a command failed; what was finished before stays.
        BadInput: the bundle is of another training.

    """
    place.mkdir(parents=True, exist_ok=True)
    run, bundle = place / RUN, place / BUNDLE
    if not (run / SUMMARY).exists():
        write_atomic(place / RECIPE, recipe_of(study, scale, cell, data, teacher).to_toml().encode())
        edgeproof("distill", place / RECIPE, "--out", run, "--resume")
    if not (bundle / MANIFEST).exists():
        edgeproof("export", run, "--out", bundle)
    check_bundle(place)
    for attack in study.attacks:
        out = place / attack
        if not (out / REPORT).exists():
            options = ("--attacks", attack, "--n", study.n, "--no-gate", *scale.verify)
            edgeproof("verify", bundle, *options, "--out", out, "--resume", may_doubt=True)
    write_atomic(place / RECORD, to_json(record_of(study, cell, place)))


def edgeproof(*arguments: object, may_doubt: bool = False) -> None:
    """Run one command of edgeproof in a process of its own."""
    command = [str(Path(sys.executable).with_name("edgeproof")), *map(str, arguments)]
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # it was told too, and is saving where it stands
        process.wait()
        raise
    if code and not (may_doubt and code == IN_DOUBT):
        raise subprocess.CalledProcessError(code, command)
