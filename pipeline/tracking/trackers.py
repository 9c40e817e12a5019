"""Logs a training run to Weights & Biases or MLflow, besides its directory. Each is an extra, with Fabric's `Logger`.

A tracker never stops a run. If it fails during training, a warning says so, and it gets no further figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lightning_fabric.loggers.logger import Logger
from pydantic import ValidationError

from pipeline.recipe.schema import Recipe
from pipeline.recipe.tables import LogTable
from runtime.errors import BadInput, MissingEnvironment, first_line, install
from runtime.files import write_atomic
from runtime.spec import Frozen, Text, first_fault, to_json
from runtime.terminal.log import log

TRACKED = "tracking.json"
"""The file in the run directory that names the tracked runs."""
MODULES = {"wandb": "wandb", "mlflow": "mlflow"}
"""The module that each extra installs; extras are named like the keys of [log]."""
EXPERIMENT = "edgeproof"
"""The MLflow experiment, unless MLFLOW_EXPERIMENT_NAME names another."""
FLUSH_SECONDS, MOST = 5.0, 900
"""Least seconds between two requests to MLflow, and the most figures in one; MLflow allows 1,000."""
ENDED = {"success": "FINISHED", "aborted": "KILLED"}
"""MLflow's words for how a run ended; any other status is FAILED."""
LONGEST = 500
"""The longest value of a parameter, in characters, that every version of MLflow accepts."""


class Tracked(Frozen):
    """tracking.json: the tracked runs of a training run, which a resumed run continues."""

    wandb: Text | None = None
    mlflow: Text | None = None


class WandbRun(Logger):
    """A run of Weights & Biases. WANDB_MODE=offline keeps it on the local disk, for `wandb sync`."""

    def __init__(self, project: str, recipe: Recipe, directory: Path, known: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            name=recipe.name,
            id=known,
            resume="allow" if known else None,
            dir=directory,
            config=recipe.to_dict(),
        )
        for place, axis in (("train/*", "step"), ("holdout/*", "epoch")):
            self._run.define_metric(place, step_metric=axis)

    @property
    def name(self) -> str:
        """The project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self._run.id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures of training step `step`, or of the hold-out after epoch `step`."""
        self._run.log({**metrics, _axis(metrics): step})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the results of the run, in addition to the recipe."""
        self._run.summary.update(params)

    def finalize(self, status: str) -> None:
        """End the run, and wait until everything is sent."""
        self._run.finish(exit_code=0 if status == "success" else 1)


class MlflowRun(Logger):
    """A run on an MLflow server."""

    def __init__(self, uri: str, recipe: Recipe, directory: Path, known: str | None) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        self._waiting: list[Any] = []
        self._told = time.monotonic()
        if known:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"edgeproof.directory": str(directory.resolve())}
        self._id = self._client.create_run(experiment, run_name=recipe.name, tags=tags).info.run_id
        self._log_params(recipe.to_dict())

    @property
    def name(self) -> str:
        """The experiment."""
        return EXPERIMENT

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self._id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Queue figures of training step `step`, or of the hold-out after epoch `step`, for the next request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._waiting += [Metric(name, value, now, step or 0) for name, value in metrics.items()]
        if len(self._waiting) >= MOST or time.monotonic() - self._told >= FLUSH_SECONDS:
            self.save()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the results of the run: numbers as metrics, the rest as tags."""
        for name, value in _flat(params).items():
            if isinstance(value, int | float):
                self._client.log_metric(self._id, name, value)
            else:
                self._client.set_tag(self._id, name, str(value))

    def save(self) -> None:
        """Send the queued figures."""
        waiting, self._waiting = self._waiting, []
        self._told = time.monotonic()
        for start in range(0, len(waiting), MOST):
            self._client.log_batch(self._id, metrics=waiting[start : start + MOST])

    def finalize(self, status: str) -> None:
        """Send the queued figures, and end the run."""
        self.save()
        self._client.set_terminated(self._id, ENDED.get(status, "FAILED"))

    def _log_params(self, table: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:LONGEST]) for name, value in _flat(table).items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(self._id, params=params[start : start + 100])


KINDS: dict[str, Callable[[str, Recipe, Path, str | None], Logger]] = {"wandb": WandbRun, "mlflow": MlflowRun}


class Trackers:
    """The trackers of a run; one that fails is dropped with a warning. Leaving the block ends the tracked runs."""

    def __init__(self) -> None:
        self._loggers: dict[str, Logger] = {}

    def open(self, recipe: Recipe, directory: Path) -> None:
        """Open the trackers of a recipe's [log], continue the runs of a resumed run, and write tracking.json.

        Raises:
            MissingEnvironment: a tracker cannot be reached, or cannot start; nothing has been trained yet.
            BadInput: tracking.json is damaged.

        """
        known = _known(directory)
        for name, kind in KINDS.items():
            if (place := getattr(recipe.log, name)) is None:
                continue
            try:
                self._loggers[name] = kind(place, recipe, directory, getattr(known, name))
            except Exception as error:  # each library has errors of its own
                raise MissingEnvironment(
                    f"log.{name}: {first_line(error)}", hint=f"mend it, or leave log.{name} out of the recipe"
                ) from error
            known = known.model_copy(update={name: str(self._loggers[name].version)})
            write_atomic(directory / TRACKED, to_json(known))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        aborted = kind is not None and issubclass(kind, KeyboardInterrupt)
        status = "success" if kind is None else "aborted" if aborted else "failed"
        self._each(lambda logger: logger.finalize(status))

    def metrics(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures of a step or an epoch."""
        self._each(lambda logger: logger.log_metrics(dict(figures), step))

    def summary(self, summary: Frozen) -> None:
        """Log the results of the run, as in summary.json."""
        table = summary.model_dump(mode="json", exclude_none=True, exclude={"software"})
        self._each(lambda logger: logger.log_hyperparams({"summary": table}))

    def save(self) -> None:
        """Send the queued figures."""
        self._each(lambda logger: logger.save())

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                tell(logger)
            except Exception as error:  # whatever a tracker's library or server does, training continues
                del self._loggers[name]
                log.warning(f"{name} failed and gets no further figures; the run continues: {first_line(error)}")


def check_trackers(asked: LogTable) -> None:
    """Check, before any data are read, that the trackers of a recipe's [log] are installed.

    Raises:
        MissingEnvironment: an extra is missing.

    """
    for name, module in MODULES.items():
        if getattr(asked, name) is not None and find_spec(module) is None:
            raise MissingEnvironment(
                f"log.{name} needs the extra {name!r}: {module} is not installed", hint=install(name)
            )


def _known(directory: Path) -> Tracked:
    path = directory / TRACKED
    try:
        return Tracked.model_validate_json(path.read_bytes()) if path.exists() else Tracked()
    except ValidationError as error:
        raise BadInput(f"{path}: {first_fault(error)}", hint="remove the file: the trackers begin new runs") from None


def _axis(metrics: Mapping[str, float]) -> str:
    return "epoch" if any(name.startswith("holdout/") for name in metrics) else "step"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by their paths."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
