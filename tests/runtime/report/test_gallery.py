"""gallery.npz: which images it shows, and that they are what the evidence says they are."""

import numpy as np
import pytest

from runtime.errors import BadRun
from runtime.gallery import store as galleries
from runtime.gallery.store import MOST, STEPS, merged, read_gallery
from runtime.records.report import load_report
from runtime.suite.evidence import STANDS, WRONG_BEFORE
from tests.command_line import edgeproof
from tests.tiny import EPS


@pytest.fixture
def evidence(made):
    with np.load(made / "run" / "evidence.npz") as file:
        return dict(file)


def test_the_gallery_holds_the_first_images_of_every_outcome(made, evidence):
    gallery = read_gallery(made / "run")
    for outcome in set(evidence["broken_by"].tolist()):
        first = evidence["index"][evidence["broken_by"] == outcome][:MOST]
        np.testing.assert_array_equal(gallery.index[gallery.broken_by == outcome], first)
    assert {STANDS, WRONG_BEFORE, 0} <= set(gallery.broken_by.tolist())


def test_the_gallery_says_of_an_image_what_the_evidence_says(made, evidence):
    gallery = read_gallery(made / "run")
    rows = np.searchsorted(evidence["index"], gallery.index)
    for name in ("label", "clean_prediction", "adversarial_prediction", "broken_by", "linf"):
        np.testing.assert_array_equal(getattr(gallery, name), evidence[name][rows])


def test_perturbations_are_the_points_found_to_a_step(made):
    gallery = read_gallery(made / "run")
    moved = gallery.perturbation / STEPS * EPS
    shown = (gallery.adversarial.astype(float) - gallery.image) / 255
    assert np.abs(moved - shown).max() <= 1 / 255 + EPS / STEPS
    farthest = np.abs(moved).reshape(len(gallery), -1).max(axis=1)
    np.testing.assert_allclose(farthest, gallery.linf, atol=EPS / STEPS)
    assert not gallery.perturbation[gallery.broken_by == WRONG_BEFORE].any()


def test_the_gallery_is_the_same_whether_or_not_the_points_are_kept(made, tmp_path):
    options = ["--attacks", "fgsm,pgd,cw", "--save-adversarial", "--batch", 7]
    assert edgeproof("verify", made / "bundle", *options, "--out", tmp_path / "kept").exit_code == 0
    assert (tmp_path / "kept" / "gallery.npz").read_bytes() == (made / "run" / "gallery.npz").read_bytes()


@pytest.mark.parametrize("parts", [2, 7, 60])
def test_the_first_images_of_the_parts_give_those_of_the_whole(made, parts):
    whole = read_gallery(made / "run")
    shards = [whole.rows(np.flatnonzero(whole.index % parts == part)) for part in range(parts)]
    again = merged(shards[::-1], attacks=3)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)


def test_of_large_images_the_gallery_holds_fewer_but_one_of_each_outcome():
    assert galleries._most(3, (1, 28, 28)) == MOST
    assert galleries._most(3, (3, 224, 224)) == 1
    assert galleries._most(3, (3, 2000, 2000)) == 1


DAMAGE = {
    "no array": b"",
    "an array missing": {"image": None},
    "another shape": {"perturbation": np.zeros((1, 1, 4, 4), np.int8)},
    "another type": {"label": np.zeros(3)},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_gallery_is_bad_input(run, damage):
    path = run / "gallery.npz"
    with np.load(path) as file:
        arrays = dict(file)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        np.savez(path, **{name: value for name, value in {**arrays, **damage}.items() if value is not None})
    with pytest.raises(BadRun, match=r"gallery\.npz is damaged"):
        read_gallery(run)
    result = edgeproof("report", run)
    assert result.exit_code == 3
    assert "hint: remove it" in result.stderr
    path.unlink()
    assert edgeproof("report", run).exit_code == 0
    assert load_report(run)
