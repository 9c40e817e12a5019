"""faults.json and faults.md: what was injected where, how often, and what came of it."""

import json
import platform
import subprocess
from collections import Counter

from runtime.files import write_atomic
from runtime.machine.card import cpu_model, software
from tests.faults.library import FAULTS
from tests.faults.trial import KILLED, WRONG
from tests.paths import ROOT

LIBRARIES = ("edgeproof", "numpy", "onnx", "onnxruntime", "torch")


def write_report(out, session):
    """Write both files of all trials so far; return how many ended wrong."""
    trials = [trial for trial in session.trials.values() if trial["how"] is not None]
    record = {"commit": commit(), "machine": machine(), "file_system": session.file_system, **summary(trials)}
    write_atomic(out / "faults.json", (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(out / "faults.md", page(record).encode())
    return len(record["wrong"])


def commit():
    """Return the commit that was tried, and whether anything was changed since."""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def machine():
    return {
        "cpu": cpu_model(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        **software(LIBRARIES),
    }


def summary(trials):
    """Return the figures: of each command and fault how many trials there were, and how they ended."""
    parts = {}
    for trial in trials:
        row = parts.setdefault(trial["part"], {}).setdefault(trial["command"], {}).setdefault(trial["fault"], [])
        row.append(trial)
    counted = {
        part: {
            command: {
                fault: {"n": _n(row), "ended": dict(Counter(trial["how"] for trial in row))}
                for fault, row in faults.items()
            }
            for command, faults in commands.items()
        }
        for part, commands in parts.items()
    }
    places = {
        command: dict(Counter(trial["felt"].partition(" ")[0] for trial in faults.get("io", ()) if "felt" in trial))
        for command, faults in parts.get("writes", {}).items()
    }
    return {"parts": counted, "places": places, "wrong": [trial for trial in trials if trial["how"] == WRONG]}


def _n(row):
    return sum(trial.get("mutations", trial.get("processes", 1)) for trial in row)


def page(record):
    """Return the tables, in Markdown."""
    lines = [f"Commit {record['commit']}; {_said(record['machine'])}; files on {record['file_system']}.", ""]
    parts = record["parts"]
    if "kills" in parts:
        lines += table(
            ("command", "kills that came before its end", "then the same command ends right"),
            [
                (name, row["ended"].get(KILLED, 0) + row["ended"].get(WRONG, 0), row["ended"].get(KILLED, 0))
                for name, faults in parts["kills"].items()
                for row in faults.values()
            ],
        )
    if "writes" in parts:
        lines += table(
            ("command", *(FAULTS[fault].what for fault in FAULTS)),
            [(name, *(_cell(faults.get(fault)) for fault in FAULTS)) for name, faults in parts["writes"].items()],
        )
        calls = sorted({call for row in record["places"].values() for call in row})
        lines += table(
            ("where: calls of", *calls),
            [(name, *(row.get(call, 0) for call in calls)) for name, row in record["places"].items()],
        )
    for part, title in (("fleet", "fleet"), ("mutations", "mutated")):
        if part in parts:
            rows = [
                (name, fault, row["n"], "; ".join(row["ended"]))
                for name, each in parts[part].items()
                for fault, row in each.items()
            ]
            lines += table((title, "fault", "n", "ended"), rows)
    lines += [
        "",
        *(f"- {trial['part']}, {trial['command']}, {trial['fault']}: {trial['wrong']}" for trial in record["wrong"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def table(head, rows):
    return [
        "| " + " | ".join(map(str, head)) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
    ]


def _cell(row):
    return "not tried" if row is None else f"{row['n']}: {_ended(row)}"


def _ended(row):
    return "; ".join(f"{n} {how}" for how, n in sorted(row["ended"].items(), key=lambda each: -each[1]))


def _said(card):
    return ", ".join(f"{name} {value}" for name, value in card.items())
