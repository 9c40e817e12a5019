"""Writes the table of CUDA kernels in ONNX Runtime: `python -m tools.cuda.kernels TABLE.json WHEEL...`.

Get a WHEEL for this Python by `pip download --no-deps onnxruntime-gpu==VERSION`. No GPU is needed.
The kernels are read as in ONNX Runtime's tools/python/gen_opkernel_doc.py, which writes docs/OperatorKernels.md.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tools.cuda.stand_in import stand_in

PROVIDER = "CUDAExecutionProvider"
DOMAINS = ("", "com.microsoft")
OPEN = 2**31 - 1
"""The last version that ONNX Runtime reports for a kernel without an end."""

Kernel = tuple[int, int | None, dict[str, list[str]]]
"""First and last version (None: the first only, see tests/export/cuda/kernels.py), and types by their constraint."""


def say_kernels() -> None:
    """Print the kernels of the imported onnxruntime as JSON: {domain: {op: [Kernel, ...]}}."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    found: dict[str, dict[str, list[Kernel]]] = {domain: defaultdict(list) for domain in DOMAINS}
    for entry in get_all_opkernel_def():
        if entry.provider == PROVIDER and entry.domain in DOMAINS:
            first, last = entry.version_range
            types = {name: [kind[7:-1] for kind in kinds] for name, kinds in entry.type_constraints.items()}
            found[entry.domain][entry.op_name].append((first, None if last == OPEN else last, types))
    kernels = {domain: {op: joined(every) for op, every in ops.items()} for domain, ops in found.items()}
    print(json.dumps({"version": onnxruntime.__version__, "kernels": kernels}))


def joined(kernels: list[Kernel]) -> list[Kernel]:
    """Merge kernels that differ in one type constraint only, as the instances of one template do."""
    rows: list[Kernel] = []
    for first, last, types in kernels:
        for row in rows:
            apart = [name for name in types if types[name] != row[2].get(name)]
            if row[:2] == (first, last) and row[2].keys() == types.keys() and len(apart) <= 1:
                for name in apart:
                    row[2][name] = sorted({*row[2][name], *types[name]})
                break
        else:
            rows.append((first, last, dict(types)))
    return sorted(rows, key=lambda row: row[0])


def written(tables: dict[str, Any]) -> str:
    """Return tables by version as JSON, with one operator per line."""
    compact = json.JSONEncoder(separators=(",", ":"))
    versions = []
    for version, domains in tables.items():
        parts = []
        for domain, ops in domains.items():
            lines = [f"{compact.encode(op)}: {compact.encode(ops[op])}" for op in sorted(ops)]
            parts.append(f"{compact.encode(domain)}: {{\n" + ",\n".join(lines) + "\n}")
        versions.append(f"{compact.encode(version)}: {{\n" + ",\n".join(parts) + "\n}")
    return "{\n" + ",\n".join(versions) + "\n}\n"


def main(target: str, *wheels: str) -> None:
    """Write the table for several versions of ONNX Runtime."""
    tables = {}
    for wheel in wheels:
        with stand_in(Path(wheel)) as runtime:
            said = json.loads(runtime.run("tools.cuda.kernels:say_kernels").stdout)
        tables[said["version"]] = said["kernels"]
    Path(target).write_text(written(tables))


if __name__ == "__main__":
    main(*sys.argv[1:])
