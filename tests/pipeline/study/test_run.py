"""Whole studies, tiny: cells run once, failures are told, several processes share a directory."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from click.testing import CliRunner

from pipeline.models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.recipe.schema import load_recipe
from pipeline.study.cell import check_unchanged, claimed, missing, run_cell
from pipeline.study.plan import expand, load_study
from pipeline.study.results import read_cell
from pipeline.study.run import FAILURE, attempt, run_here, run_on_ray
from runtime.cli import main
from runtime.errors import MissingEnvironment
from runtime.files import sha256
from runtime.images import DATA_ROOT
from runtime.records.report import load_report
from tests.paths import PROGRAM


def run(*arguments):
    return CliRunner().invoke(main, ["study", *map(str, arguments)])


def snapshot(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} | {
        path: path.stat().st_mtime_ns for path in out.rglob("report.json")
    }


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A study of two cells that ran through the command line: (its file, its directory, the result)."""
    from tests.pipeline.study.conftest import write_study

    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder, data)
    return path, folder / "out", run(path, "--out", folder / "out")


def test_a_study_ends_in_a_table_of_its_cells(finished):
    _, out, result = finished
    assert result.exit_code == 0, result.output
    assert "pgd-at" in result.stdout
    assert "trades" in result.stdout
    names = {str(path.relative_to(out / "table")) for path in (out / "table").rglob("*") if path.is_file()}
    assert names == {
        "table.md", "table.csv", "study.html", "accuracy.png",
        "cells/resnet18-pgd-at-seed0.json", "cells/resnet18-trades-seed0.json",
    }  # fmt: skip
    judged = json.loads((out / "resnet18-pgd-at-seed0" / "gradient" / "report.json").read_bytes())
    kept = json.loads((out / "table/cells/resnet18-pgd-at-seed0.json").read_bytes())["evaluations"]["gradient"]
    assert kept["clean"]["value"] == judged["clean"]["accuracy"]
    assert [kept["attacks"][row["name"]]["value"] for row in judged["attacks"]] == [
        row["accuracy"] for row in judged["attacks"]
    ]
    assert f"{100 * judged['clean']['accuracy']:.1f}" in (out / "table/table.md").read_text()


def test_finished_cells_are_not_repeated(finished):
    path, out, _ = finished
    before = snapshot(out)
    again = run(path, "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert snapshot(out) == before


def test_the_table_can_be_written_again_without_running_anything(finished, tmp_path):
    path, out, _ = finished
    before, table = snapshot(out), (out / "table/table.md").read_bytes()
    (out / "table/table.md").unlink()
    assert run(path, "--out", out, "--table").exit_code == 0
    assert snapshot(out) == before
    assert (out / "table/table.md").read_bytes() == table
    nothing = run(path, "--out", tmp_path / "new", "--table")
    assert nothing.exit_code == 5
    assert "2 of 2 cells are not finished" in nothing.stderr
    assert "waiting" in nothing.stderr


def test_a_study_that_is_interrupted_says_how_the_study_goes_on(study_file, tmp_path):
    recipe = study_file.with_name("recipe.toml")
    recipe.write_text(recipe.read_text().replace("epochs = 1\nmax_steps = 2", "epochs = 10000"))
    out = tmp_path / "out"
    with subprocess.Popen(
        [*PROGRAM, "study", study_file, "--out", out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits it as ignored
    ) as process:
        while process.poll() is None and not list(out.glob("*/run/metrics.jsonl")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 130, told
    assert told.splitlines()[-2:] == [
        f"finished work is saved; to resume: edgeproof study {study_file} --out {out} --resume",
        "interrupted",
    ]
    assert told.count("to resume") == 1


def test_a_directory_that_exists_needs_resume(finished):
    path, out, _ = finished
    result = run(path, "--out", out)
    assert result.exit_code == 2
    assert "not empty" in result.stderr


def cut_off_at_once(cell, directory):
    """Leave what a run has written when it is killed before its first step."""
    (directory / "run").mkdir(parents=True)
    (directory / "run/recipe.toml").write_text(cell.recipe.to_toml())
    (directory / "run/metrics.jsonl").write_text("")


def test_a_run_that_was_cut_off_is_run_again_and_a_later_evaluation_does_not_train_again(study, tmp_path):
    cell, _ = expand(study)
    directory = tmp_path / "out" / cell.name
    cut_off_at_once(cell, directory)
    assert attempt(study, cell, tmp_path / "out", DATA_ROOT).state == "finished"
    before = snapshot(tmp_path / "out")
    more = study.model_copy(
        update={"evaluation": (*study.evaluation, study.evaluation[0].model_copy(update={"name": "more"}))}
    )
    assert attempt(more, cell, tmp_path / "out", DATA_ROOT).state == "finished"
    after = snapshot(tmp_path / "out")
    assert before.items() < after.items()
    assert {path.parent.name for path in after.keys() - before.keys()} == {"more"}


def retrained(cell):
    """Give a cell another network, as training it anew would."""
    path = cell / "run/student.best.safetensors"
    network, card = load_checkpoint(path)
    with torch.no_grad():
        next(network.parameters()).mul_(-1)
    save_checkpoint(path, network, card)
    return sha256(path.read_bytes())


@pytest.mark.parametrize("cut_off", [False, True])
def test_another_network_in_a_cell_is_judged_again_and_the_old_report_is_not_its_own(finished, tmp_path, cut_off):
    path, out, _ = finished
    shutil.copytree(out, tmp_path / "out")
    cell, other = (tmp_path / "out" / f"resnet18-{method}-seed0" for method in ("pgd-at", "trades"))
    old = (cell / "gradient/report.json").read_bytes()
    network = retrained(cell)
    if cut_off:
        (cell / "gradient/report.json").unlink()
    study = load_study(str(path))
    assert [missing(study, place) for place in (cell, other)] == [("gradient",), ()]
    found = read_cell(study, expand(study)[0], cell)
    assert found is not None
    assert not found.evaluations
    before = snapshot(other)
    assert attempt(study, expand(study)[0], tmp_path / "out", DATA_ROOT).state == "finished"
    assert load_report(cell / "gradient").request.artifact_sha256 == network
    assert missing(study, cell) == ()
    assert snapshot(other) == before
    if not cut_off:
        assert (cell / "gradient.previous-1/report.json").read_bytes() == old


def test_a_run_goes_on_with_other_resources(study, tmp_path):
    cell, _ = expand(study)
    directory = tmp_path / "out" / cell.name
    cut_off_at_once(cell, directory)
    more = study.model_copy(update={"set": ("resources.cpus=2", "resources.gpus=0")})
    again, _ = expand(more)
    assert again.recipe != cell.recipe
    assert attempt(more, again, tmp_path / "out", DATA_ROOT).state == "finished"
    assert not list(directory.glob("*.previous-*"))
    check_unchanged(study, cell, directory)


def test_a_run_that_began_otherwise_is_kept_beside_the_new_one(study, tmp_path, monkeypatch):
    cell, _ = expand(study)
    directory = tmp_path / cell.name
    monkeypatch.setattr("pipeline.study.cell.distill", lambda recipe, run, **_: run.mkdir())
    monkeypatch.setattr("pipeline.study.cell._evaluate", lambda *_: None)
    for epochs in (2, 3):
        (directory / "run").mkdir(parents=True, exist_ok=True)
        changed = cell.recipe.model_copy(update={"train": cell.recipe.train.model_copy(update={"epochs": epochs})})
        (directory / "run/recipe.toml").write_text(changed.to_toml())
        run_cell(study, cell, directory)
    kept = [load_recipe(str(directory / f"run.previous-{n}/recipe.toml")).train.epochs for n in (1, 2)]
    assert kept == [2, 3]
    assert not any((directory / "run").iterdir())


@pytest.mark.parametrize("change", ["max_steps = 3", "n = 10", "n ="])
def test_a_changed_study_is_refused_before_anything_runs(finished, tmp_path, change):
    path, out, _ = finished
    recipe, text = path.with_name("recipe.toml").read_text(), path.read_text()
    key = change.partition(" =")[0]
    new = "" if change.endswith("=") else change  # taken out: all images
    changed = ["\n".join(new if line.startswith(f"{key} =") else line for line in each.splitlines())
               for each in (recipe, text)]  # fmt: skip
    (tmp_path / "recipe.toml").write_text(changed[0])
    (tmp_path / "study.toml").write_text(changed[1].replace(str(path.parent), str(tmp_path)))
    before = snapshot(out)
    result = run(tmp_path / "study.toml", "--out", out, "--resume")
    assert result.exit_code == 3
    assert f"remove {out}/resnet18-pgd-at-seed0" in "".join(result.stderr.split("\n"))
    assert snapshot(out) == before


def test_all_images_asked_for_by_their_number_are_the_same_study(finished, tmp_path):
    path, out, _ = finished
    directory = tmp_path / "resnet18-pgd-at-seed0"
    shutil.copytree(out / directory.name, directory)
    study = load_study(str(path))
    whole = study.model_copy(update={"evaluation": (study.evaluation[0].model_copy(update={"name": "w", "n": None}),)})
    named = study.model_copy(update={"evaluation": (study.evaluation[0].model_copy(update={"name": "w", "n": 40}),)})
    cell = expand(study)[0]
    assert attempt(whole, cell, tmp_path, DATA_ROOT).state == "finished"
    for same in (whole, named):
        check_unchanged(same, cell, directory)


def test_a_cell_that_fails_is_told_and_the_others_go_on(study_file, tmp_path):
    text = study_file.read_text() + '\n[method.pgd-at]\nset = ["train.lr=1e30"]\n'
    study_file.write_text(text)
    result = run(study_file, "--out", tmp_path / "out")
    assert result.exit_code == 5
    assert "1 of 2 cells are not finished" in result.stderr
    assert "resnet18-pgd-at-seed0: failed: NonFinite" in result.stderr
    assert "Not finished: resnet18-pgd-at-seed0" in (tmp_path / "out/table/table.md").read_text()
    assert "NonFinite" in (tmp_path / "out/resnet18-pgd-at-seed0" / FAILURE).read_text()
    assert (tmp_path / "out/table/cells/resnet18-trades-seed0.json").exists()
    study_file.write_text(text.replace("1e30", "1e-3"))
    mended = run(study_file, "--out", tmp_path / "out", "--resume")
    assert mended.exit_code == 0, mended.output
    assert not (tmp_path / "out/resnet18-pgd-at-seed0" / FAILURE).exists()


@pytest.mark.parametrize("file", ["run/summary.json", "run/recipe.toml", "gradient/report.json"])
def test_a_damaged_file_of_one_cell_is_told_and_the_others_go_on(finished, tmp_path, file):
    path, out, _ = finished
    shutil.copytree(out, tmp_path / "out")
    damaged, other = (tmp_path / "out" / f"resnet18-{method}-seed0" for method in ("pgd-at", "trades"))
    (damaged / file).write_text("{")
    shutil.rmtree(other / "gradient")
    for options in ("--resume",), ("--resume", "--table"):
        result = run(path, "--out", tmp_path / "out", *options)
        assert result.exit_code == 5, result.output
        assert "1 of 2 cells are not finished" in result.stderr
        assert str(damaged / file) in result.stderr.replace("\n", "")
        assert "resnet18,trades" in (tmp_path / "out/table/table.csv").read_text()
    assert (damaged / file).read_text() == "{"


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ('set = ["data.path=nowhere"]', "nowhere holds no data set"),
        ('[method.ard]\nset = ["teacher.path=nobody"]', "no teacher at"),
        ('[method.ard]\nset = ["teacher.name=nobody"]', "there is no teacher named 'nobody'"),
    ],
)
def test_a_study_without_its_data_or_teachers_is_refused_before_the_first_cell(study_file, tmp_path, lacks, says):
    text = study_file.read_text()
    if "[method.ard]" in lacks:
        text = text.replace('["pgd-at", "trades"]', '["pgd-at", "ard"]')
    study_file.write_text(f"{text}\n{lacks}\n" if lacks.startswith("[") else f"{lacks}\n{text}")
    result = run(study_file, "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_defect_in_one_cell_leaves_its_traceback_and_not_the_study(study, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("pipeline.study.run.run_cell", broken)
    attempts = list(run_here(study, expand(study), tmp_path / "out", DATA_ROOT))
    assert [each.state for each in attempts] == ["failed", "failed"]
    assert "ZeroDivisionError" in attempts[0].reason
    assert "Traceback" in (tmp_path / "out" / attempts[0].cell / FAILURE).read_text()


def test_a_cell_that_another_process_has_is_left_to_it(study, tmp_path):
    cell, _ = expand(study)
    with claimed(tmp_path / "out" / cell.name) as mine:
        assert mine
        assert attempt(study, cell, tmp_path / "out", DATA_ROOT).state == "elsewhere"
    assert [path.name for path in (tmp_path / "out" / cell.name).iterdir()] == [".claim"]


def test_without_ray_the_command_says_which_extra(study, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingEnvironment, match="extra 'ray'"):
        list(run_on_ray(study, expand(study), tmp_path, DATA_ROOT, "local"))


@pytest.mark.slow
def test_a_local_ray_that_a_cell_asks_too_much_of_is_told_at_once(study_file, tmp_path):
    pytest.importorskip("ray")
    study_file.write_text('set = ["resources.cpus=4096"]\n' + study_file.read_text())
    result = run(study_file, "--out", tmp_path / "out", "--ray", "local")
    assert result.exit_code == 4, result.output
    assert "resnet18-pgd-at-seed0 needs 4096 CPUs, but this machine has " in result.stderr


@pytest.mark.slow
@pytest.mark.check
def test_a_local_ray_runs_every_cell_and_tells_of_the_one_that_fails(study_file, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # Ray sets it to a task's CPUs, where it is not set
    cpus = min(2, os.cpu_count() or 1)
    own = f'\n[method.pgd-at]\nset = ["train.lr=1e30"]\n\n[method.trades]\nset = ["resources.cpus={cpus}"]\n'
    study_file.write_text(study_file.read_text() + own)
    result = run(study_file, "--out", tmp_path / "out", "--ray", "local")
    assert result.exit_code == 5, result.output
    assert "resnet18-pgd-at-seed0: failed: NonFinite" in result.stderr
    assert (tmp_path / "out/table/cells/resnet18-trades-seed0.json").exists()
    summary = json.loads((tmp_path / "out/resnet18-trades-seed0/run/summary.json").read_bytes())
    assert summary["threads"] == cpus
