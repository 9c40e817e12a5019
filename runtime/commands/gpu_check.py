"""`edgeproof gpu-check`: runs every check for which this machine has a GPU and libraries, and writes a report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.bundle.manifest import MANIFEST
from runtime.commands.judging import REPORTS
from runtime.errors import MissingEnvironment, UsageFault
from runtime.files import check_new_directory, sha256, write_atomic
from runtime.gpu_check.checks import CHECKS_GROUP
from runtime.machine.card import machine_card, software
from runtime.markdown import escape, table
from runtime.options.record import NewDirectory
from runtime.options.trust import acceptance_options, open_acceptable
from runtime.records.gpu_check import EngineComparison, GpuCheck, Result
from runtime.spec import to_json
from runtime.tensorrt.library import EDITIONS
from runtime.terminal.log import VARIABLE, is_quiet, log
from runtime.words import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.bundle.signing import Trust

JSON, PAGE = "gpu-check.json", "gpu-check.md"
LIBRARIES = ("edgeproof", "numpy", "onnxruntime", "onnxruntime-gpu", *EDITIONS, "cuda-bindings", "pycuda", "torch")
DIFFERS = 1
CHILD = """
import sys
if sys.path[0] == "":
    del sys.path[0]  # the working directory, whose modules are not meant
import edgeproof
from runtime.gpu_check.checks import main
main(sys.argv[1:])
"""
"""The code of a check's process. With `python -m`, it would import modules from the working directory."""


@click.command("gpu-check")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--n", type=click.IntRange(min=1), default=128, show_default=True, help="Compare the first N images.")
@click.option("--only", multiple=True, help="Run only this check; may be given several times.  [default: all]")
@acceptance_options
@click.option("--out", type=NewDirectory(), help="New directory for the report.  [default: one in reports/]")
def gpu_check(
    bundle: Path,
    n: int,
    only: tuple[str, ...],
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    allow_unsigned: bool,
    out: Path | None,
) -> None:
    """Compare the engines of this machine's GPU with ONNX Runtime on the CPU, image by image.

    It compares logits, gradients and verdicts on TensorRT and on ONNX Runtime's GPU providers, and a training step in
    PyTorch. Exit code 0: all that was checked agrees; 1: something differs or failed; 4: nothing could be checked here.
    """
    names = sorted({entry.name for entry in entry_points(group=CHECKS_GROUP)})
    if unknown := set(only) - set(names):
        raise UsageFault(f"there is no check {', '.join(sorted(unknown))}", hint=f"there are: {', '.join(names)}")
    started = timestamp()
    out = out or REPORTS / f"gpu-check-{started.replace(':', '')}"
    opened = open_acceptable(bundle, trust, state, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
    check_new_directory(out)
    out.mkdir(parents=True, exist_ok=True)
    manifest_sha256 = sha256(opened.read(MANIFEST))
    results = tuple(in_a_process(name, bundle, manifest_sha256, out, n, state) for name in only or names)
    evaluation = opened.manifest.evaluation
    report = GpuCheck(
        bundle=f"{opened.manifest.name} {opened.manifest.version}",
        manifest_sha256=manifest_sha256,
        data=evaluation.name,
        n=min(n, evaluation.n),
        device=machine_card(),
        software=software(LIBRARIES),
        started=started,
        results=results,
    )
    write_atomic(out / JSON, to_json(report))
    page = "\n".join(lines(report)) + "\n"
    write_atomic(out / PAGE, page.encode())
    click.echo(page + f"\nreport: {out}")
    conclude(results)


def in_a_process(name: str, bundle: Path, manifest_sha256: str, out: Path, n: int, state: Path | None) -> Result:
    """Run one check in a process of its own, and return its result; a crash is a result too.

    The process's stderr is shown, and kept in OUT/NAME.log.
    """
    log.info(f"{name}:")
    arguments = [name, bundle, out, n, manifest_sha256, *([state] if state else [])]
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    said = []
    environment = {**os.environ, **({VARIABLE: ""} if is_quiet() else {})}  # the log file stays complete
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603 - ours
        assert process.stderr is not None
        for line in process.stderr:
            log.info(f"  {line.rstrip()}")
            said.append(line)
    if said:
        write_atomic(out / f"{name}.log", "".join(said).encode())
    left, code = out / f"{name}.json", process.returncode
    result = Result(name=name, state="failed", message="no answer")
    if left.is_file():
        result = Result.model_validate_json(left.read_bytes())
        if code == 0:
            return result
    how = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    last = said[-1].strip() if said else "it said nothing"
    message = f"its process {how}: {last} (before that: {result.message})"
    return result.model_copy(update={"state": "failed", "message": message, "hint": f"see {name}.log"})


def conclude(results: Iterable[Result]) -> None:
    """Exit with the code that the results give.

    Raises:
        MissingEnvironment: no check could run.

    """
    states = {result.state for result in results}
    if states <= {"not there"}:
        raise MissingEnvironment(
            "nothing here could be checked on a GPU",
            hint="the table says what is missing; docs/tensorrt.md says how to get it",
        )
    click.get_current_context().exit(DIFFERS if states & {"differs", "failed"} else 0)


def lines(report: GpuCheck) -> list[str]:
    """Return the report as lines of Markdown."""
    rows = [
        (
            escape(result.name),
            f"**{result.state}**",
            escape(result.message + (f" ({result.hint})" if result.hint else "")),
        )
        for result in report.results
    ]
    text = [f"# GPU check of {escape(report.bundle)}", ""]
    text += [f"{report.n} images of {escape(report.data)}; begun {report.started}.", ""]
    text += [table(("check", "", ""), rows)]
    for result in report.results:
        text += ["", f"## {escape(result.name)}", ""] if result.comparisons or result.figures else []
        for comparison in result.comparisons:
            text += described(comparison)
        text += _listed(result.figures)
    text += ["", "## Machine", ""]
    return text + _listed({**report.device, **report.software})


def _listed(facts: Mapping[str, object]) -> list[str]:
    return [f"- {escape(name)}: {escape(str(value))}" for name, value in facts.items()]


def described(found: EngineComparison) -> list[str]:
    """Return one comparison as lines of a Markdown list."""
    text = [
        f"- {found.precision} on {escape(found.device)}: the same class for {found.same_prediction} of {found.n} "
        "images",
        f"  - logits apart by {found.logit_error.median:.1e} (median), {found.logit_error.largest:.1e} (largest), in a "
        f"batch and alone by {found.batch_error:.1e}, as parts of an image's largest logit",
    ]
    if found.gradient_error:
        text += [
            f"  - gradients apart by {found.gradient_error.median:.1e} (median), {found.gradient_error.high:.1e} (99 %)"
            f", cosine at least {found.gradient_cosine:.6f}",
            f"  - {found.attack}: the same verdict on {found.same_verdict} images; {found.robust} survive, on the CPU "
            f"{found.robust_reference}",
        ]
    text.append(f"  - {found.milliseconds:.3f} ms an image forward; engine {found.engine_sha256 or 'not one file'}")
    return text
