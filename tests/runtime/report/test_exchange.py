"""What other tools read of a report: CycloneDX by its own schema, RobustBench's row only where there is one."""

import json
import re
from dataclasses import replace

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from runtime.attacks import stages
from runtime.attacks.autoattack import standard
from runtime.bundle.opening import open_bundle
from runtime.errors import BadInput
from runtime.records.measurements import AttackRow
from runtime.records.report import load_report
from runtime.report import cyclonedx, robustbench
from runtime.report.account import Account
from runtime.session import GraphFacts
from runtime.spec import DataRecord, ThreatModel
from runtime.verdict.subject import attack_request
from tests.command_line import edgeproof
from tests.paths import ROOT

TINY = ROOT / "tests" / "data" / "tiny-bundle"


@pytest.fixture
def account(made):
    return Account(load_report(made / "run"), manifest=open_bundle(made / "bundle").manifest)


def bom(account):
    return json.loads(cyclonedx.render(account))


@pytest.mark.parametrize("of", ["report and bundle", "report alone", "a bundle with origins"])
def test_the_bill_of_materials_is_valid_by_cyclonedx_own_schema(account, of):
    if of == "report alone":
        account = replace(account, manifest=None)
    if of == "a bundle with origins":
        account = replace(account, manifest=with_origins(account.manifest))
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(cyclonedx.render(account)) is None


def test_a_wrong_document_would_be_seen(account):
    wrong = bom(account) | {"serialNumber": "7"}
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(json.dumps(wrong)) is not None


def with_origins(manifest):
    """Return a manifest with everything that a bill of materials has a place for."""
    data = {"name": "more", "n": 3, "sha256": "b" * 64}
    origin = {
        "recipe": {"student": {"arch": "resnet18", "width": 16}}, "recipe_sha256": "1" * 64,
        "checkpoint_sha256": "2" * 64, "teacher_sha256": "3" * 64, "software": {"torch": "2.9"},
        "training_data": {"name": "train", "n": 9, "sha256": "c" * 64}, "extra_data": data,
    }  # fmt: skip
    packed = {"file": "model.onnx", "sha256": "4" * 64, "opset": 18, "changes": ()}
    graph = manifest.graphs["fp32"].model_copy(update={"calibration": {"data": data, "method": "percentile"}})
    return manifest.model_copy(update={"provenance": origin, "packed": packed, "graphs": {"fp32": graph}})


def test_it_lists_every_file_set_and_ancestor_with_its_digest(account):
    account = replace(account, manifest=with_origins(account.manifest))
    document, manifest = bom(account), account.manifest
    digests = {part["name"]: part["hashes"][0]["content"] for part in document["components"]}
    assert digests == {
        **{name: entry.sha256 for name, entry in manifest.files.items()},
        "tiny/test": manifest.evaluation.sha256, "train": "c" * 64, "more": "b" * 64,
    }  # fmt: skip
    model = document["metadata"]["component"]
    assert model["hashes"][0]["content"] == account.report.artifact.sha256
    assert [each["name"] for each in model["pedigree"]["ancestors"]] == ["checkpoint", "teacher", "model.onnx"]
    assert model["modelCard"]["modelParameters"]["modelArchitecture"] == "resnet18, width 16"
    referred = {each["ref"] for each in model["modelCard"]["modelParameters"]["datasets"]}
    assert referred <= {part["bom-ref"] for part in document["components"]}
    assert len(referred) == 4


def test_its_figures_are_the_reports_with_slice_and_interval(account):
    report = account.report
    metrics = bom(account)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    worst = next(each for each in metrics if "worst case" in each["slice"])
    assert float(worst["value"]) == pytest.approx(report.robust_accuracy.value, abs=1e-6)
    ends = worst["confidenceInterval"]
    assert [float(ends["lowerBound"]), float(ends["upperBound"])] == pytest.approx(
        report.robust_accuracy.ci95, abs=1e-6
    )
    assert "linf, eps 0.01" in worst["slice"]
    assert all(each["slice"] for each in metrics)
    classes = [each for each in metrics if each["slice"].startswith("class ")]
    assert len(classes) == 2 * len(report.per_class)
    assert all("confidenceInterval" in each for each in classes)


def test_the_same_report_and_bundle_give_the_same_bytes_and_others_another_number(account):
    assert cyclonedx.render(account) == cyclonedx.render(account)
    number = bom(account)["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", number)
    assert bom(replace(account, manifest=None))["serialNumber"] != number
    other = account.report.model_copy(update={"seed": 8})
    assert bom(replace(account, report=other))["serialNumber"] != number
    assert bom(account)["metadata"]["timestamp"] == account.report.started


@pytest.mark.parametrize("render", [cyclonedx.render, robustbench.render])
def test_another_bundle_than_the_one_judged_is_refused(account, render):
    with pytest.raises(BadInput, match="does not contain the artifact that was judged"):
        render(replace(account, manifest=open_bundle(TINY).manifest))


def test_the_command_writes_it_beside_the_report(run, made):
    result = edgeproof("report", run, "--format", "cyclonedx", "--bundle", made / "bundle")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(run / "bom.cdx.json")
    assert json.loads((run / "bom.cdx.json").read_text())["specVersion"] == "1.7"


def test_a_run_that_no_leaderboard_takes_is_refused_with_the_reason(run):
    result = edgeproof("report", run, "--format", "robustbench")
    assert (result.exit_code, "RobustBench has no leaderboard for tiny/test" in result.stderr) == (3, True)
    assert not (run / "robustbench.json").exists()


@pytest.fixture
def whole(made):
    """A report as AutoAttack on all of CIFAR-10 leaves one: a real one's frame, with the figures of such a run."""
    report = load_report(made / "run")
    rows, left = [], 8000
    for name in (*standard(10), "aa"):
        last = name == "aa"
        rows.append(
            AttackRow(
                name=name, cascade=not last, gradient="none" if name == "square" else "own",
                attacked=8000 if last else left, broken=3000 if last else 750,
                accuracy=0.5 if last else (left - 750) / 10000, ci95=(0.4, 0.6), seconds=1, forwards=1, gradients=1,
            )
        )  # fmt: skip
        left -= 0 if last else 750
    attacks = (attack_request("aa", stages("aa", 10)),)
    return report.model_copy(
        update={
            "attacks": tuple(rows),
            "data": DataRecord(name="cifar10/test", n=10000, sha256="d" * 64),
            "threat_model": ThreatModel(eps=8 / 255),
            "clean": {"n": 10000, "correct": 8000, "accuracy": 0.8, "ci95": (0.79, 0.81)},
            "per_class": tuple(report.per_class[0] for _ in range(10)),
            "request": report.request.model_copy(update={"attacks": attacks, "added": ()}),
            "warnings": (),
        }
    )


def test_the_row_of_a_whole_standard_run_is_as_robustbench_keeps_it(whole, account):
    entry = json.loads(robustbench.render(Account(whole, manifest=with_origins(account.manifest))))
    assert entry["eps"] == "8/255"
    assert (entry["clean_acc"], entry["autoattack_acc"]) == ("80.00", "50.00")
    assert (entry["dataset"], entry["architecture"], entry["additional_data"]) == (
        "cifar10",
        "resnet18, width 16",
        True,
    )
    assert set(entry) == {
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture",
        "eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable",
    }  # fmt: skip
    assert json.loads(robustbench.render(Account(whole)))["additional_data"] is None


def rows_changed(report, name, **change):
    return tuple(row.model_copy(update=change) if row.name == name else row for row in report.attacks)


def weaker(report):
    (asked,) = report.request.attacks
    settings = {**asked.settings, "square.queries": 100}
    return report.request.model_copy(update={"attacks": (asked.model_copy(update={"settings": settings}),)})


FINDING = {"check": "softmax", "blocking": True, "message": "m", "hint": "h"}
UNFIT = {
    "another set": (lambda r: {"data": DataRecord(name="svhn/test", n=10000, sha256="d" * 64)}, "has no leaderboard"),
    "a part of it": (lambda r: {"data": DataRecord(name="cifar10/test", n=9999, sha256="d" * 64)}, "judged 9999"),
    "another eps": (lambda r: {"threat_model": ThreatModel(eps=4 / 255)}, "its eps is 4/255"),
    "no AutoAttack": (lambda r: {"attacks": r.attacks[:-1]}, "AutoAttack did not run"),
    "a parent's gradient": (lambda r: {"attacks": rows_changed(r, "aa", gradient="parent")}, "did not run by"),
    "a part of AutoAttack": (lambda r: {"attacks": r.attacks[1:]}, "of the standard suite ran apgd-t, fab-t, square"),
    "fewer images": (lambda r: {"attacks": rows_changed(r, "aa", attacked=7999)}, "ran on 7999 of 8000"),
    "other settings": (lambda r: {"request": weaker(r)}, "other settings"),
    "steps": (lambda r: {"artifact": r.artifact.model_copy(update={"facts": GraphFacts(quantised=True)})}, "surrogate"),
    "a blocking check": (lambda r: {"warnings": (FINDING,)}, "not to be believed: softmax"),
    "other classes": (lambda r: {"per_class": r.per_class[:3]}, "of 3 classes"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_a_leaderboard_does_not_take_is_refused(whole, what):
    change, says = UNFIT[what]
    with pytest.raises(BadInput, match=re.escape(says)):
        robustbench.render(Account(whole.model_copy(update=change(whole))))
    assert robustbench.render(Account(whole))
