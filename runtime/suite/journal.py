"""The journal of a run: each unit of work is on disk before the next begins, so that a killed run loses little.

A unit is one attack on one chunk of images. It writes units/NAME.npz, completely or not at all, and then a line in
journal.jsonl with that file's digest. Every line has a checksum over itself and the line before, which shows whether a
line was changed, moved or lost in the middle. A resumed run takes finished units from here, and does the rest. If a
GPU's batches are kept full, parts of several units are in work at once, and a kill loses all of them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from errno import ENOSPC
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from runtime.errors import BadRun, UsageFault
from runtime.files import npz_of, sha256, write_atomic
from runtime.images.npz import UNREADABLE, open_npz
from runtime.locks import try_lock
from runtime.machine.cuda import NAMES as GPU_SOFTWARE
from runtime.terminal.log import log
from runtime.words import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

JOURNAL = "journal.jsonl"
UNITS = "units"
SCHEMA = "edgeproof.journal/1"
BEGIN_AGAIN = "start again with another --out"
CHECK_DIGITS = 32
"""The number of hexadecimal digits of a line's checksum, a shortened SHA-256."""


@dataclass(frozen=True)
class Work:
    """The result of a unit.

    Args:
        arrays: by name, one row per image.
        seconds: the time that it took.
        forwards: images whose logits were asked.
        gradients: images whose gradient was asked.

    """

    arrays: dict[str, Any]
    seconds: float = 0.0
    forwards: int = 0
    gradients: int = 0


class Ledger(Protocol):
    """Has the units that are done.

    Attributes:
        earlier_seconds: the time of the units that were taken from here.

    """

    earlier_seconds: float

    def holds(self, name: str) -> bool:
        """Return whether a unit is done."""

    def unit(self, name: str, index: Any, do: Callable[[], Work]) -> Work:
        """Return the work of the unit `name` on the images at `index`; do it if it is not done yet."""


class NoJournal:
    """Does every unit and keeps none, for runs without a directory."""

    earlier_seconds = 0.0

    def holds(self, name: str) -> bool:
        """Return False."""
        return False

    def unit(self, name: str, index: Any, do: Callable[[], Work]) -> Work:
        """Do the unit."""
        return do()


class Journal:
    """The units of one run directory, in which only one process may work at a time.

    Attributes:
        started: when the run began, ISO 8601 in UTC.
        earlier_seconds: the time of the units that were taken from here.

    """

    def __init__(self, directory: Path, request_sha256: str, made_by: Mapping[str, str | int] | None = None) -> None:
        """Open the journal of `directory`, or begin one.

        Args:
            directory: of the run.
            request_sha256: the digest of the run's request.
            made_by: the software and machine on which the bits of a unit also depend.

        Raises:
            BadRun: the journal is damaged, or of another request, software or machine.
            UsageFault: another process is working in the directory.
            MissingEnvironment: the file system has no locks.

        """
        self.path, self.units = directory / JOURNAL, directory / UNITS
        self.earlier_seconds = 0.0
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if not try_lock(self._file, self.path):
                raise UsageFault(
                    f"another process is using {directory}", hint="wait for it to end, or choose another --out"
                )
            self._check, self._entries = "", {}
            lines = self._read()
            if not lines:
                self._begin(request_sha256, dict(made_by or {}))
            else:
                header = lines[0]
                if header.get("schema") != SCHEMA or header.get("request_sha256") != request_sha256:
                    raise BadRun(f"{self.path} belongs to another request or version", hint=BEGIN_AGAIN)
                self._check_made_by(header.get("made_by", {}), dict(made_by or {}))
                self.started: str = header["started"]
                self._entries = {line["unit"]: line for line in lines[1:]}
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of units that are done."""
        return len(self._entries)

    def holds(self, name: str) -> bool:
        """Return whether a unit is done."""
        return name in self._entries

    @property
    def done(self) -> dict[str, int]:
        """The number of images that are done, by the names of units without the number at the end."""
        images: Counter[str] = Counter()
        for name, entry in self._entries.items():
            images[name.rpartition("-")[0]] += entry["images"]
        return dict(images)

    def unit(self, name: str, index: Any, do: Callable[[], Work]) -> Work:
        """Return the work of a unit; do and record it if it is not done yet.

        Raises:
            BadRun: the unit's file is damaged, or of other images.

        """
        if name in self._entries:
            return self._recall(name, index)
        work = do()
        data = npz_of({"index": index, **work.arrays})
        write_atomic(self._unit_file(name), data)
        costs = {"seconds": work.seconds, "forwards": work.forwards, "gradients": work.gradients}
        self._append({"unit": name, "images": len(index), **costs, "sha256": sha256(data)})
        log.debug(f"{name}: {len(index)} images, {work.seconds:.1f} s")
        return work

    def close(self) -> None:
        """Release the lock, so that another process can work here."""
        os.close(self._file)

    def drop_units(self) -> None:
        """Remove the units' files and keep the lines, for a finished run."""
        shutil.rmtree(self.units, ignore_errors=True)

    def remove(self) -> None:
        """Remove the journal and the units, for a run without finished work."""
        self.drop_units()
        self.path.unlink(missing_ok=True)

    def _recall(self, name: str, index: Any) -> Work:
        entry, path = self._entries[name], self._unit_file(name)
        try:
            data = path.read_bytes()
            if sha256(data) != entry["sha256"]:
                raise ValueError("its digest does not match the journal")
            with open_npz(data) as file:
                arrays = dict(file)
        except UNREADABLE as error:
            raise BadRun(f"{path} is damaged: {error}", hint=BEGIN_AGAIN) from None
        if not np.array_equal(arrays.pop("index"), index):
            raise BadRun(f"{path} belongs to other images", hint=BEGIN_AGAIN)
        self.earlier_seconds += entry["seconds"]
        return Work(arrays, entry["seconds"], entry["forwards"], entry["gradients"])

    def _unit_file(self, name: str) -> Path:
        return self.units / f"{name}.npz"

    def _check_made_by(self, was: dict[str, str | int], now: dict[str, str | int]) -> None:
        unsaid = [name for name in GPU_SOFTWARE if name not in was]  # earlier versions did not record these
        for name in sorted((was.keys() | now.keys()) - set(unsaid)):
            if was.get(name) != now.get(name):
                before, after = (card.get(name, "unknown") for card in (was, now))
                raise BadRun(
                    f"{self.path} began with {name} {before}, and this is {after}: the results may differ",
                    hint=f"resume with the same {name}, or {BEGIN_AGAIN}",
                )

    def _begin(self, request_sha256: str, made_by: dict[str, str | int]) -> None:
        if self.units.exists():
            raise BadRun(f"{self.path} is missing, but {self.units} exists", hint=BEGIN_AGAIN)
        self.started = timestamp()
        header = {"schema": SCHEMA, "request_sha256": request_sha256, "started": self.started, "made_by": made_by}
        self._append(header)

    def _append(self, record: dict[str, Any]) -> None:
        self._check = _checksum(self._check, record)
        line = _line({**record, "check": self._check})
        if os.write(self._file, line) < len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(self.path))
        os.fsync(self._file)
        if "unit" in record:
            self._entries[record["unit"]] = record

    def _read(self) -> list[dict[str, Any]]:
        """Return the records; cut off a last line that a power cut left incomplete."""
        whole, _, torn = self.path.read_bytes().rpartition(b"\n")
        if torn:
            os.ftruncate(self._file, len(whole) + 1 if whole else 0)
        records = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                check = record.pop("check")
            except (ValueError, AttributeError, KeyError, TypeError):
                record, check = {}, None
            if check != _checksum(self._check, record):
                raise BadRun(f"{self.path}: line {number} is damaged", hint=BEGIN_AGAIN)
            self._check = check
            records.append(record)
        return records


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, sort_keys=True) + "\n").encode()


def _checksum(before: str, record: dict[str, Any]) -> str:
    return sha256(before.encode() + _line(record))[:CHECK_DIGITS]
