"""A run is logged to Weights & Biases and MLflow too, offline: what arrives there, and what happens where it fails."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from pipeline.recipe.schema import load_recipe
from pipeline.runs.distill import distill
from pipeline.tracking import trackers as tracking
from runtime.errors import BadInput, MissingEnvironment
from tests.pipeline.runs.small_runs import STEPS_PER_EPOCH, assert_equal_bits, metrics, small, weights
from tests.pipeline.runs.test_resume import STEP, stop

STEPS = 2 * STEPS_PER_EPOCH


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A file store of MLflow in a directory; newer versions want to be told that it is meant."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "mlruns").as_uri()


def tracked(store):
    """Return the one run that a store has, as its client."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs([client.get_experiment_by_name("edgeproof").experiment_id])
    return client, run


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of MLflow, about itself
def test_mlflow_gets_figures_recipe_and_summary_and_the_run_is_the_same_as_without(store, tmp_path):
    plain = small(tmp_path)
    distill(plain, tmp_path / "plain")
    recipe = small(tmp_path, f"log.mlflow={store}")
    summary = distill(recipe, tmp_path / "run")
    assert_equal_bits(weights(tmp_path / "run"), weights(tmp_path / "plain"))
    assert "mlruns" not in (tmp_path / "run" / "recipe.toml").read_text()
    client, run = tracked(store)
    assert (run.info.run_name, run.info.status) == ("small", "FINISHED")
    assert run.data.params["train.batch"] == "20"
    losses = sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, "train/loss"))
    logged = [(line["step"], line["loss"]) for line in metrics(tmp_path / "run") if "loss" in line]
    assert losses == logged
    assert run.data.metrics["holdout/pgd"] == summary.last.pgd
    assert run.data.metrics["summary.best.clean"] == summary.best.clean


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(store, tmp_path, monkeypatch):
    recipe = small(tmp_path, f"log.mlflow={store}")
    with monkeypatch.context() as patch:
        stop(patch, STEP, STEPS_PER_EPOCH + 2)
        with pytest.raises(KeyboardInterrupt):
            distill(recipe, tmp_path / "run", save_seconds=0.0)
    _, run = tracked(store)
    assert run.info.status == "KILLED"
    distill(recipe, tmp_path / "run", resume=True)
    client, run = tracked(store)
    assert run.info.status == "FINISHED"
    steps = {each.step for each in client.get_metric_history(run.info.run_id, "train/loss")}
    assert steps == set(range(1, STEPS + 1))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_tracker_that_fails_while_the_run_trains_is_warned_of_once_and_changes_nothing(store, tmp_path, capsys):
    distill(small(tmp_path), tmp_path / "plain")
    recipe = small(tmp_path, f"log.mlflow={store}")
    opened = tracking.Trackers.open

    def opened_and_lost(self, *arguments):
        opened(self, *arguments)
        shutil.rmtree(tmp_path / "mlruns")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking.Trackers, "open", opened_and_lost)
        distill(recipe, tmp_path / "run")
    assert capsys.readouterr().err.count("mlflow failed and gets no further figures; the run continues") == 1
    assert_equal_bits(weights(tmp_path / "run"), weights(tmp_path / "plain"))


def test_a_tracker_that_cannot_be_opened_ends_the_run_before_it_trains(store, tmp_path):
    recipe = small(tmp_path, "log.mlflow=nowhere://at/all")
    with pytest.raises(MissingEnvironment, match=r"log\.mlflow") as caught:
        distill(recipe, tmp_path / "run")
    assert "leave log.mlflow out" in caught.value.hint
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


WANDB = """
import sys
from pipeline.recipe.schema import load_recipe
from pipeline.runs.distill import distill
from pathlib import Path
distill(load_recipe(sys.argv[1], ["log.wandb=edge"]), Path(sys.argv[2]), resume=True)
"""


def test_wandb_writes_an_offline_run_of_this_name(tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    recipe = tmp_path / "small.toml"
    small(tmp_path)
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", WANDB, str(recipe), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # its threads end too
    assert done.returncode == 0, done.stderr
    known = json.loads((tmp_path / "run" / "tracking.json").read_text())["wandb"]
    (file,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb")
    written = file.read_bytes()
    for said in (b"train/loss", b"holdout/pgd", b"images_per_second", b"weight_decay"):
        assert said in written


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_extra_is_named_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda module: None)
    with pytest.raises(MissingEnvironment, match=f"needs the extra '{name}'") as caught:
        distill(small(tmp_path, f"log.{name}=x"), tmp_path / "run")
    assert f"[{name}]" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_damaged_record_of_the_trackers_says_what_to_do(store, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tracking.json").write_text("{")
    with pytest.raises(BadInput, match=r"tracking\.json"), tracking.Trackers() as opened:
        opened.open(small(tmp_path, f"log.mlflow={store}"), tmp_path / "run")


def test_where_a_run_is_logged_is_no_part_of_the_recipe(tmp_path):
    recipe = small(tmp_path, "log.wandb=edge", "log.mlflow=http://user:secret@server")
    assert "log" not in recipe.to_dict()
    (tmp_path / "kept.toml").write_text(recipe.to_toml())
    assert load_recipe(str(tmp_path / "kept.toml")).log.wandb is None
