"""The table on CIFAR-10-JPEG: its cells, what is a tie in it, and one cell the whole way."""

import io
import json
import shutil
import zipfile
from functools import partial
from math import sqrt

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from benchmarks.cifar10 import __main__ as script
from benchmarks.cifar10.cell import edgeproof, run_cell
from benchmarks.cifar10.mixture import check_place, check_records
from benchmarks.cifar10.record import Judged, Record, read_records, record_of
from benchmarks.cifar10.study import Scale, Study, cells, load_study, recipe_of
from benchmarks.cifar10.table import agreement, difference, gather, ordering, to_markdown
from pipeline.data.sets import hold_out, load_dataset
from pipeline.models.checkpoint import Figures, load_checkpoint, save_checkpoint
from pipeline.runs.directory import Summary, TeacherFigures, open_run
from runtime.errors import BadData, EdgeproofError, UsageFault
from runtime.files import sha256
from runtime.spec import DataRecord, to_json
from tests.paths import ROOT

NETWORKS = ROOT / "benchmarks/results/cifar10-table"

STUDY = load_study()
DIGEST, OTHER = "0" * 64, "1" * 64
TESTED = DataRecord(name="test", n=4, sha256=DIGEST)
CPU = STUDY.scale["cpu"]


def record(row, aa, *, student="resnet18", seed=0, clean=None, training=None, **other):
    """Return the record of a cell of the CPU scale whose images answer AutoAttack as the digits of `aa` say."""
    method = next(own.method for own in STUDY.rows if own.name == row)
    figures = Figures(epoch=1, n=4, clean=1.0, pgd=0.5)
    judged = {
        attack: Judged(
            artifact_sha256=DIGEST,
            clean=clean or "1" * len(aa),
            stands=aa,
            doubts=(),
            seconds=1800.0,
            device={"cpu": "a processor"},
            software={},
        )
        for attack in STUDY.attacks
    }
    summary = Summary(
        name=f"{student}-{row}-seed{seed}",
        method=method,
        seed=seed,
        best=figures,
        last=figures,
        steps=1,
        seconds=3600.0,
        images_per_second=1.0,
        precision="bf16",
        device="cpu",
        threads=1,
        teacher_sha256=DIGEST,
        teacher=TeacherFigures(n=4, clean=0.75, pgd=0.5),
        training_data=DataRecord(name="train", n=100, sha256=DIGEST),
        software={"torch": "2"},
    ).model_copy(update=training)
    setting = {"width": 0.25, "epochs": 4, "schedule": "one-cycle", "search_steps": 2, "test_data": TESTED} | other
    return Record(row=row, method=method, student=student, seed=seed, training=summary, judged=judged, **setting)


def groups(*records):
    return gather(STUDY, records)


@pytest.mark.parametrize("scale", STUDY.scale)
def test_every_cell_of_a_scale_has_a_recipe_of_its_own(scale, tmp_path):
    found = cells(STUDY, STUDY.scale[scale])
    recipes = [recipe_of(STUDY, STUDY.scale[scale], cell, tmp_path, tmp_path / "t.safetensors") for cell in found]
    assert len({recipe.to_toml() for recipe in recipes}) == len(found)
    assert [recipe.name for recipe in recipes] == [cell.name for cell in found]


def test_overrides_of_a_student_that_is_not_there_are_refused():
    scale = {"cpu": {"seeds": [0], "student": {"mobilenetv2": ["train.precision=fp32"]}}}
    with pytest.raises(ValidationError, match="no student is called mobilenetv2"):
        Study.model_validate(STUDY.model_dump() | {"scale": scale})


def test_the_reference_and_the_pairs_are_rows():
    names = {row.name for row in STUDY.rows}
    assert {STUDY.reference, *(name for pair in STUDY.pairs for name in pair)} <= names


def test_a_difference_is_paired_image_by_image():
    this, that = groups(record("pgd-at", "1100"), record("adaad", "1000"))
    found = difference(this, that, "aa")
    assert found.value == pytest.approx(0.25)
    assert found.error == pytest.approx(sqrt(0.25 / 4))  # of the differences 0, 1, 0, 0
    assert found.tie


def test_images_that_all_agree_are_no_certainty():
    this, that = groups(record("pgd-at", "1100"), record("adaad", "1100"))
    assert difference(this, that, "aa").error == 0.5 / 4


def test_seeds_add_what_training_again_moves():
    this, that = groups(
        *(record("pgd-at", digits, seed=seed) for seed, digits in enumerate(("1111", "1001"))),
        *(record("adaad", "1000", seed=seed) for seed in range(2)),
    )
    found = difference(this, that, "aa")
    over_images = np.var([0, 0.5, 0.5, 1], ddof=1) / 4
    over_seeds = np.var([1, 0.5], ddof=1) / 2
    assert found.value == pytest.approx(0.5)
    assert found.error == pytest.approx(sqrt(over_images + over_seeds))


def test_the_published_ordering_is_held_to_what_was_measured():
    stronger, weaker = "1" * 80 + "0" * 20, "1" * 20 + "0" * 80
    pairs = ordering(STUDY, groups(record("pgd-at", stronger), record("adaad", weaker), record("trades", weaker)))
    said = {(a.row, b.row): agreement(difference(a, b, "aa")) for a, b, _ in pairs}
    assert said == {("adaad", "trades"): "tie", ("adaad", "pgd-at"): "opposes", ("trades", "pgd-at"): "opposes"}
    swapped = ordering(STUDY, groups(record("pgd-at", weaker), record("adaad", stronger)))
    assert [agreement(difference(a, b, "aa")) for a, b, _ in swapped] == ["agrees"]


def test_what_was_never_published_and_another_student_have_no_published_ordering():
    other = record("adaad", "1100", student="mobilenet_v2")
    assert ordering(STUDY, groups(record("rslad-cropshift", "1100"), record("pgd-at", "1100"), other)) == []


def test_the_page_says_in_which_precision_each_student_was_trained():
    other = record("adaad", "1100", student="mobilenet_v2", training={"precision": "fp32"})
    page = to_markdown(STUDY, [record("adaad", "1100"), other], [])
    assert "2 search steps; mobilenet_v2 in fp32; resnet18 in bf16." in page


def test_the_page_says_n_seeds_hours_machine_and_what_is_missing():
    page = to_markdown(STUDY, [record("adaad", "1100")], ["resnet18-trades-seed0"])
    assert "| resnet18 | 0.25 | adaad | 1 | 4 | 100.0 (51.0 to 100.0) | 50.0 (15.0 to 85.0) |" in page
    assert "| 2.00 |" in page  # an hour of training, twice half an hour of attacks
    assert "a processor" in page
    assert "Missing: resnet18-trades-seed0." in page


TAUGHT = {"teacher_sha256": OTHER}
SEEDS = Scale(seeds=(0, 1), set=CPU.set, student=CPU.student)


def of(digest, n=100):
    return {"training_data": DataRecord(name="train", n=n, sha256=digest)}


@pytest.mark.parametrize(
    ("mixed", "why"),
    [
        (record("adr", "1100", width=1.0, epochs=25), "width = 1.0 and not 0.25, epochs = 25 and not 4"),
        (record("adr", "1100", schedule="steps"), "schedule = steps and not one-cycle"),
        (record("adr", "1100", search_steps=10), "search_steps = 10 and not 2"),
        (record("adr", "1100", training={"precision": "fp32"}), "precision = fp32 and not bf16"),
        (
            record("adr", "1100", student="mobilenet_v2"),
            "mobilenet_v2-adr-seed0: precision = bf16 and not fp32",
        ),
        (record("adr", "1100", training=TAUGHT), "have different teachers: 000000000000 and 111111111111"),
        (record("adr", "1100", training=of(OTHER)), "have different training images for seed 0"),
        (
            record("adr", "1100", seed=1, training=of(OTHER, n=200)),
            "have different numbers of training images: 100 and 200",
        ),
        (record("adr", "1100", test_data=TESTED.model_copy(update={"sha256": OTHER})), "have different test images"),
        (record("adr", "110"), "have different numbers of judged images: 4 and 3"),
        (record("adr", "1100", seed=2), "resnet18-adr-seed2 is no cell of this scale"),
    ],
)
def test_cells_that_are_not_of_one_table_are_refused(mixed, why):
    with pytest.raises(UsageFault) as refused:
        check_records(STUDY, SEEDS, [record("adaad", "1100"), mixed])
    assert why in refused.value.message
    assert refused.value.hint


def test_the_hold_out_of_another_seed_and_a_method_without_a_teacher_are_no_mixture():
    untaught = record("adr", "1100", seed=1, training={**of(OTHER), "teacher_sha256": None, "teacher": None})
    check_records(STUDY, SEEDS, [record("adaad", "1100"), untaught])


def test_the_records_of_the_docs_are_of_one_table():
    kept = read_records(ROOT / "docs/studies/cifar10-table/cells")
    assert len(kept) >= 14
    check_records(STUDY, CPU, kept)
    with pytest.raises(UsageFault, match=r"width = 0\.25 and not 1"):
        check_records(STUDY, STUDY.scale["gpu"], kept)


@pytest.mark.skipif(not NETWORKS.exists(), reason="a source distribution leaves the networks out")
def test_the_students_that_are_kept_are_those_of_the_table():
    records = {record.name: record for record in read_records(ROOT / "docs/studies/cifar10-table/cells")}
    places = sorted(NETWORKS.iterdir())
    assert [place.name for place in places] == sorted(records)
    for place in places:
        kept = open_run(place, "best")
        assert kept.summary == records[place.name].training
        assert kept.card.figures == kept.summary.best
        (cell,) = (cell for cell in cells(STUDY, CPU) if cell.name == place.name)
        assert kept.recipe == recipe_of(STUDY, CPU, cell, kept.recipe.data.path, kept.recipe.teacher.path)


def test_a_record_of_an_earlier_version_names_no_test_images_and_the_page_says_so():
    known, unknown = record("adaad", "1100"), record("adr", "1100")
    earlier = Record.model_validate_json(json.dumps(
        {key: value for key, value in json.loads(unknown.model_dump_json()).items() if key != "test_data"}
    ))  # fmt: skip
    check_records(STUDY, CPU, [known, earlier])
    told = "No digest of the test images is on record for resnet18-adr-seed0: whether they are the same is not checked."
    assert told in to_markdown(STUDY, [known, earlier], [])
    assert "No digest" not in to_markdown(STUDY, [known], [])


def asked(monkeypatch, capsys, *words):
    """Give the command these words; return its exit code and what it says on stderr."""
    monkeypatch.setattr("sys.argv", ["benchmarks.cifar10", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    return ended.value.code, capsys.readouterr().err


def test_the_table_of_another_scale_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_bytes(to_json(record("adaad", "1100")))
    code, said = asked(monkeypatch, capsys, "table", tmp_path, "--scale", "gpu")
    assert (code, "hint: " in said) == (2, True)
    assert "resnet18-adaad-seed0: width = 0.25 and not 1.0" in said


@pytest.fixture
def place(tmp_path):
    """A data set, a teacher's file, and one finished cell of the CPU scale in `out`."""
    pictures(tmp_path / "a.zip", classes=2, train=300)
    script.unpack(tmp_path / "a.zip", tmp_path / "data", None)
    (tmp_path / "teacher").write_bytes(b"a teacher")
    images = load_dataset(None, tmp_path / "data")
    seen, _ = hold_out(images.train, 500, 0)
    training = of(seen.sha256, len(seen)) | {"teacher_sha256": sha256(b"a teacher")}
    test_data = DataRecord(name="data/test", n=4, sha256=images.test.sha256)
    finished = record("adaad", "1100", training=training, test_data=test_data)
    (tmp_path / "out/cells").mkdir(parents=True)
    (tmp_path / "out/cells/resnet18-adaad-seed0.json").write_bytes(to_json(finished))
    run = tmp_path / "out/resnet18-adaad-seed0/run"
    run.mkdir(parents=True)
    (cell,) = (cell for cell in cells(STUDY, CPU) if cell.name == "resnet18-adaad-seed0")
    (run / "recipe.toml").write_text(recipe_of(STUDY, CPU, cell, tmp_path / "data", tmp_path / "teacher").to_toml())
    return tmp_path


def test_a_directory_is_gone_on_with_from_the_same_images_and_teacher(place):
    check_place(STUDY, CPU, place / "data", place / "teacher", place / "out")


def test_images_and_teacher_of_finished_cells_may_lie_elsewhere(place):
    (place / "data").rename(place / "moved")
    (place / "teacher").rename(place / "renamed")
    check_place(STUDY, CPU, place / "moved", place / "renamed", place / "out")


def test_a_finished_cell_of_another_recipe_is_refused(place):
    """Of a recipe's settings a record holds only a few: of a weight of IGDM or an augmentation it says nothing."""
    recipe = place / "out/resnet18-adaad-seed0/run/recipe.toml"
    recipe.write_text(recipe.read_text().replace('augment = "pad-crop"', 'augment = "cropshift"'))
    with pytest.raises(UsageFault, match=r"resnet18-adaad-seed0: the run began with another recipe:\n.*data.augment"):
        check_place(STUDY, CPU, place / "data", place / "teacher", place / "out")


def test_a_record_of_another_method_than_its_row_is_refused():
    mixed = record("adr", "1100").model_copy(update={"method": "trades"})
    with pytest.raises(UsageFault, match="method = trades and not adr"):
        check_records(STUDY, CPU, [mixed])


def test_a_run_of_another_scale_is_refused_before_it_begins(place, monkeypatch, capsys):
    words = ("run", place / "data", place / "teacher", place / "out", "--scale", "gpu")
    code, said = asked(monkeypatch, capsys, *words)
    assert (code, "hint: " in said) == (2, True)
    assert "width = 0.25 and not 1.0" in said
    assert {path.name for path in (place / "out").iterdir()} == {"cells", "resnet18-adaad-seed0"}


def test_a_run_with_another_teacher_or_other_images_is_refused(place):
    def refusal():
        with pytest.raises(EdgeproofError) as refused:
            check_place(STUDY, CPU, place / "data", place / "teacher", place / "out")
        return refused.value.message

    (place / "teacher").write_bytes(b"another")
    assert "have different teachers" in refusal()
    (place / "teacher").write_bytes(b"a teacher")
    for picture in (place / "data/train/class0").iterdir():
        picture.write_bytes((place / "data/train/class1" / picture.name).read_bytes())
    assert "have different training images for seed 0" in refusal()


def test_a_cell_that_has_begun_holds_its_recipe(place):
    (place / "out/cells/resnet18-adaad-seed0.json").unlink()
    with pytest.raises(UsageFault, match=r"resnet18-adaad-seed0: the run began with another recipe:\n.*teacher.path"):
        check_place(STUDY, CPU, place / "data", place / "other", place / "out")


def pictures(place, classes=4, train=12, test=6):
    """Write an archive as the data set's, of 8 x 8 pictures that a network can tell apart by their colour."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(place, "w") as archive:
        for split, count in (("train", train), ("test", test)):
            for label in range(classes):
                for number in range(count):
                    shade = random.integers(0, 60, (8, 8, 3)) + 45 * np.array([label, 3 - label, label % 2])
                    file = io.BytesIO()
                    Image.fromarray(shade.astype(np.uint8)).save(file, "JPEG")
                    archive.writestr(f"{split}/class{label}/{number:04}.jpg", file.getvalue())


def test_the_images_of_a_scale_are_the_first_of_each_class(tmp_path):
    pictures(tmp_path / "a.zip")
    script.unpack(tmp_path / "a.zip", tmp_path / "data", 2)
    names = [path.name for path in sorted((tmp_path / "data/train/class1").iterdir())]
    assert names == ["0000.jpg", "0001.jpg"]
    assert len(list((tmp_path / "data/test").rglob("*.jpg"))) == 24


@pytest.mark.slow
def test_a_cell_is_trained_exported_and_attacked_and_not_again(tmp_path, capfd):
    pictures(tmp_path / "a.zip")
    script.unpack(tmp_path / "a.zip", tmp_path / "data", None)
    tiny = ["student.width=0.0625", "train.epochs=1", "train.batch=8", "data.holdout=8", "search.steps=1"]
    study = STUDY.model_copy(update={"rows": STUDY.rows[:1], "students": STUDY.students[:1], "n": 8, "scale": {}})
    scale = Scale(seeds=(0,), set=(*tiny, "train.precision=fp32"))
    asked = (study, scale, tmp_path / "data", tmp_path / "no-teacher.safetensors", tmp_path / "out")
    assert script.run(*asked) == 0
    (found,) = read_records(tmp_path / "out/cells")
    assert (len(found.judged["aa"].stands), found.test_data.n) == (8, 8)
    manifest = json.loads((tmp_path / "out/resnet18-pgd-at-seed0/bundle/manifest.json").read_text())
    assert found.judged["aa"].artifact_sha256 in json.dumps(manifest)
    capfd.readouterr()
    assert script.run(*asked) == 0
    assert capfd.readouterr().out == ""
    place, (cell,) = tmp_path / "out/resnet18-pgd-at-seed0", cells(study, scale)
    checkpoint = place / "run/student.best.safetensors"
    network, card = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, network, card.model_copy(update={"figures": None}))
    for look in (partial(record_of, study, cell), partial(run_cell, study, scale, cell, *asked[2:4])):
        with pytest.raises(BadData, match="its bundle is of another training"):
            look(place)
    (tmp_path / "out/cells/resnet18-pgd-at-seed0.json").unlink()
    assert script.run(*asked) == 1
    assert "its bundle is of another training" in capfd.readouterr().err
    shutil.rmtree(place / "bundle")
    with torch.no_grad():
        network.head.bias += 1
    save_checkpoint(checkpoint, network, card)
    edgeproof("export", place / "run", "--out", place / "bundle")
    with pytest.raises(BadData, match="its attacks were of another bundle"):
        record_of(study, cell, place)


@pytest.mark.slow
def test_a_cell_that_fails_does_not_stop_the_others(tmp_path):
    pictures(tmp_path / "a.zip")
    script.unpack(tmp_path / "a.zip", tmp_path / "data", None)
    rslad = STUDY.rows[1]  # its teacher is missing
    study = STUDY.model_copy(update={"rows": (rslad,), "students": ("resnet18",), "scale": {}})
    place = tmp_path / "out"
    assert script.run(study, Scale(seeds=(0, 1)), tmp_path / "data", tmp_path / "none.safetensors", place) == 2
    assert not (place / "cells").exists()
