import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadData
from runtime.images.uint8_grid import to_lattice
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import bundle_files, linear_task


@given(
    pixels=st.lists(st.tuples(st.integers(0, 255), st.floats(-1, 1)), min_size=1, max_size=30),
    eps=st.floats(0, 1),
)
def test_a_rounded_point_is_an_image_of_bytes_in_the_ball_and_nearest_of_all(pixels, eps):
    clean = np.float32([value for value, _ in pixels]).reshape(1, 1, 1, -1) / np.float32(255)
    x = np.clip(clean + np.float32(eps) * np.float32([move for _, move in pixels]), 0, 1)
    rounded = to_lattice(x, clean, eps)
    levels = np.rint(255 * rounded).astype(np.uint8)
    np.testing.assert_array_equal(rounded, levels.astype(np.float32) / np.float32(255))
    assert np.abs(rounded.astype(np.float64) - clean).max() <= eps + 1e-6
    nearest = np.rint(255 * x.astype(np.float64))
    inside = np.abs(nearest - 255 * clean.astype(np.float64)) <= 255 * eps
    np.testing.assert_array_equal(levels[inside], nearest[inside])


def test_eps_in_whole_levels_reaches_them_all():
    clean = np.float32([[[[10 / 255, 0, 1]]]])
    rounded = to_lattice(clean + np.float32([8 / 255, -8 / 255, 0.4]), clean, 8 / 255)
    np.testing.assert_array_equal(np.rint(255 * rounded), [[[[18, 0, 255]]]])


def test_an_image_off_the_lattice_with_no_level_in_its_ball_is_refused():
    clean = np.float32([[[[0.5 / 255]]]])
    with pytest.raises(BadData, match="no point of the uint8 lattice"):
        to_lattice(clean, clean, 0.4 / 255)
    assert to_lattice(clean, clean, 0.6 / 255).max() in (0, np.float32(1) / np.float32(255))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("lattice") / "bundle", bundle_files(linear_task()), n=60)


def test_the_lattice_score_stands_beside_and_changes_nothing_else(bundle, tmp_path):
    reports = []
    for name, options in (("plain", []), ("lattice", ["--lattice", "uint8"])):
        result = edgeproof("verify", bundle, *options, "--out", tmp_path / name, "--json")
        assert result.exit_code == 0, result.stderr
        reports.append(json.loads(result.stdout))
    plain, lattice = reports
    assert (tmp_path / "plain" / "evidence.npz").read_bytes() == (tmp_path / "lattice" / "evidence.npz").read_bytes()
    assert plain["lattice"] is None
    assert lattice["robust_accuracy"] == plain["robust_accuracy"]
    # Points reach to the edge of the ball, 2.55 levels; the lattice of the ball ends at 2.
    assert plain["robust_accuracy"]["value"] <= lattice["lattice"]["value"] <= plain["clean"]["accuracy"]
    assert lattice["lattice"]["ci95"][0] < lattice["lattice"]["value"] < lattice["lattice"]["ci95"][1]
    assert "on uint8" in (tmp_path / "lattice" / "report.html").read_text()


def test_a_ball_without_a_level_but_the_image_itself_keeps_the_clean_accuracy(bundle, tmp_path):
    options = ["--lattice", "uint8", "--eps", "0.5/255", "--attacks", "pgd", "--json"]
    report = json.loads(edgeproof("verify", bundle, *options, "--out", tmp_path / "run").stdout)
    assert report["lattice"]["value"] == report["clean"]["accuracy"]
