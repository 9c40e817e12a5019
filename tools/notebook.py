"""Runs the quickstart notebook, and writes it with its outputs, also as a page: `python -m tools.notebook`."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "quickstart.ipynb"
SECONDS = 1800
"""Seconds that a cell may take on a busy machine."""
NOTE = "This page is the notebook `docs/notebooks/quickstart.ipynb` with what it printed."


def executed(path: Path = NOTEBOOK) -> Any:
    """Run a notebook from a clean kernel, and return it with its outputs; progress on stderr is left out.

    Raises:
        CellExecutionError: a cell fails.

    """
    os.environ["EDGEPROOF_LOG"] = "quiet"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def as_page(notebook: Any, name: str = NOTEBOOK.stem) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and the pictures that it shows by their file names."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                parts.append(f"![what the cell above draws]({file})")
            elif text := output.get("text", data.get("text/plain")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    title, *rest = parts
    return "\n\n".join([title, NOTE, *rest]) + "\n", pictures


def main() -> None:
    """Write the notebook and the page."""
    notebook = executed()
    nbformat.write(notebook, NOTEBOOK)
    page, pictures = as_page(notebook)
    NOTEBOOK.with_suffix(".md").write_text(page)
    for name, picture in pictures.items():
        NOTEBOOK.with_name(name).write_bytes(picture)


if __name__ == "__main__":
    main()
