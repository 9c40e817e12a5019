"""faults.json and faults.md: what was injected where, how often, and what came of it."""

import json
import platform
from collections import Counter

from runtime.files import write_atomic
from runtime.machine.card import cpu_model, software
from tests.faults.library import FAULTS
from tests.faults.trial import KILLED, WRONG

LIBRARIES = ("edgeproof", "numpy", "onnx", "onnxruntime", "torch")


def write_report(out, session):
    """Write both files of all trials so far; return how many ended wrong."""
    trials = [trial for trial in session.trials.values() if trial["how"] is not None]
    record = {"machine": machine(), "file_system": session.file_system, **summary(trials)}
    write_atomic(out / "faults.json", (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(out / "faults.md", page(record).encode())
    return len(record["wrong"])


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
        part: {command: {fault: _counted(row) for fault, row in faults.items()} for command, faults in commands.items()}
        for part, commands in parts.items()
    }
    places = {
        command: dict(Counter(trial["felt"].partition(" ")[0] for trial in faults.get("io", ()) if "felt" in trial))
        for command, faults in parts.get("writes", {}).items()
    }
    wrong = [trial for trial in trials if trial["how"] == WRONG]
    commits = sorted({trial["commit"] for trial in trials})
    return {"commits": commits, "parts": counted, "places": places, "wrong": wrong}


def _counted(row):
    """Return how many trials there were, of how many writes where a fault may begin at each, and how they ended."""
    n = sum(trial.get("mutations", trial.get("processes", 1)) for trial in row)
    of = next((trial["writes"] for trial in row if "writes" in trial), None)
    return {"n": n, "of": of, "ended": dict(Counter(trial["how"] for trial in row))}


def page(record):
    """Return what the trials were made on, and their tables, in Markdown."""
    on = f"{_said(record['machine'])}; files on {record['file_system']}."
    return f"Commit {' and '.join(record['commits'])}; {on}\n\n{tables(record)}"


def tables(record):
    """Return what was injected where, and how it ended, in Markdown."""
    lines, parts = [], record["parts"]
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
    return "not tried" if row is None else f"{row['n']} of {row['of']} writes: {_ended(row)}"


def _ended(row):
    return "; ".join(f"{n} {how}" for how, n in sorted(row["ended"].items(), key=lambda each: -each[1]))


def _said(card):
    return ", ".join(f"{name} {value}" for name, value in card.items())
