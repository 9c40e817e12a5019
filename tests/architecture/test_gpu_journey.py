"""What is carried to a bare machine with a GPU: collected here, put together there, without a registry."""

import os
import subprocess
import sys
import zipfile

import pytest

from benchmarks.gpu import prepare
from runtime.errors import UsageFault
from tests.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu" / "bare.sh"


def wheel(place, name):
    """Write a wheel of one module that says its name."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(place / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"NAME = {name!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def tree(tmp_path):
    """A working tree whose benchmark prints its arguments and whether the engine is there; and what is carried."""
    tree = tmp_path / "tree"
    (tree / "benchmarks" / "gpu").mkdir(parents=True)
    (tree / "benchmarks" / "gpu" / "__main__.py").write_text(
        "import sys, importlib.util as u, light\nprint(light.NAME, sys.argv[1:], u.find_spec('engine') is not None)\n"
    )
    (tree / "benchmarks" / "gpu" / "__init__.py").touch()
    (tree / ".whl" / "base").mkdir(parents=True)
    wheel(tree / ".whl" / "base", "light")
    with zipfile.ZipFile(tmp_path / "ort.zip", "w") as file:
        file.writestr("engine.py", "ENGINE = 1\n" + "#" * 5000)
    return tree


def bare(tree, *words):
    environment = {**os.environ, "PYTHON": sys.executable, "KEPT": str(tree.parent / "kept")}
    return subprocess.run(
        ["sh", SCRIPT, *words], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def test_pieces_that_came_one_by_one_are_put_together_and_the_benchmark_runs(tree, tmp_path):
    pieces = prepare.cut(tmp_path / "ort.zip", 2000, tmp_path / "pieces", "ort")
    assert len(pieces) == 3
    for piece in pieces:
        piece.rename(tree / ".whl" / piece.name)
        assert bare(tree, "keep").returncode == 0
        (tree / ".whl" / piece.name).rename(piece)
    result = bare(tree, "run", "--seconds", "9")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "light ['--seconds', '9'] True\n"


def test_where_a_piece_is_missing_the_engine_is_left_out_and_said_to_be(tree, tmp_path):
    pieces = prepare.cut(tmp_path / "ort.zip", 2000, tmp_path / "pieces", "ort")
    pieces[2].rename(tree / ".whl" / pieces[2].name)
    result = bare(tree, "run")
    assert (result.returncode, result.stdout) == (0, "light [] False\n")
    assert "piece 1 of onnxruntime-gpu is missing" in result.stderr


def test_the_script_that_is_asked_for_nothing_says_what_can_be_asked(tree):
    result = bare(tree)
    assert result.returncode == 2
    assert "bare.sh keep" in result.stderr
    assert "bare.sh run" in result.stderr


def test_a_wheel_is_copied_without_what_no_part_asks_for(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.whl", "w") as file:
        for name in (
            "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
            "onnxruntime/tools/a.py",
            "onnxruntime/b.py",
        ):
            file.writestr(name, name)
    prepare.without(tmp_path / "whole.whl", prepare.LEFT_OUT, tmp_path / "part.zip")
    assert zipfile.ZipFile(tmp_path / "part.zip").namelist() == ["onnxruntime/b.py"]


def test_a_journey_that_is_too_heavy_is_refused(monkeypatch, capsys):
    folder = ROOT / "runtime"
    prepare.check_journeys([folder])
    assert "MiB with the working tree" in capsys.readouterr().out
    monkeypatch.setattr(prepare, "JOURNEY", 1000)
    with pytest.raises(UsageFault, match="too heavy"):
        prepare.check_journeys([folder])


def test_what_is_carried_is_what_this_environment_tried():
    assert all(prepare.version(name) for name in prepare.LACKING)
    assert subprocess.run(["git", "check-ignore", "-q", ".whl/base"], cwd=ROOT, check=False).returncode == 0


def test_a_piece_and_the_working_tree_fit_one_journey():
    tree = prepare.weight(prepare.tracked())
    assert 0 < prepare.room_beside(tree) < prepare.JOURNEY - tree
    with pytest.raises(UsageFault, match="the working tree is too heavy"):
        prepare.room_beside(prepare.JOURNEY - 1000)
