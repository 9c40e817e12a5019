"""The first screen: what it answers, and that it says yes in one case alone."""

import re

import pytest

from runtime.records.report import Model, Report, load_report
from runtime.report import markdown, page
from runtime.report.account import Account, read_account
from runtime.report.answers import answers, may_ship, shipping
from runtime.report.model_facts import count, model_facts
from runtime.report.next_steps import images_to_decide, limits, next_steps, weak_classes
from runtime.words import percent
from tests.runtime.report.pages import QUESTIONS, Tags

NO_GATE = {"fail_under": None, "max_drop": None}
NOTE = {"check": "pgd-over-aa", "blocking": False, "message": "pgd is far above aa", "hint": "believe aa"}
BLOCK = {"check": "agreement", "blocking": True, "message": "another graph", "hint": "export both again"}


@pytest.fixture
def passed(made):
    """The report of a run that passed its gate, of an artifact that ships; no check found anything."""
    return load_report(made / "run")


def changed(report, **fields):
    return Report.model_validate({**report.model_dump(by_alias=True), **fields})


def of_another(report, **fields):
    """The report with other fields of its artifact."""
    return changed(report, artifact={**report.artifact.model_dump(), **fields})


def claiming(report, **gate):
    """The report of a run of a bundle whose own gate is another."""
    request = report.request.model_dump(by_alias=True)
    return changed(report, request={**request, "claim": {**request["claim"], "gate": gate}})


def found(report, check):
    """A report whose first check found something that no finding repeats, as a file may say."""
    first, *others = report.model_dump(by_alias=True)["checks"]
    return changed(report, checks=[{**first, "state": "found", "blocking": check}, *others])


def shown(report):
    """The text of the first answer on the page, and the name of its colour."""
    html = page.render(Account(report))
    box = re.search(r'<div class="verdict" style="--tone: var\(--(\w+)\)">(.*?)</ul>', html, re.DOTALL)
    return Tags(box[2]).text, box[1]


def test_a_gate_that_passed_without_a_doubt_is_a_yes(passed):
    assert may_ship(passed)
    text, tone = shown(passed)
    assert "Yes: it passed its gate" in text
    assert tone == "passed"


NEVER = {
    "failed": lambda report: changed(report, verdict="failed"),
    "inconclusive": lambda report: changed(report, verdict="inconclusive"),
    "measured": lambda report: changed(report, verdict="measured", gate=NO_GATE),
    "passed without a gate, as version 0.1 said": lambda report: changed(report, gate=NO_GATE),
    "a note": lambda report: changed(report, warnings=[NOTE]),
    "a blocking finding": lambda report: changed(report, warnings=[BLOCK]),
    "inconclusive by a finding": lambda report: changed(report, verdict="inconclusive", warnings=[BLOCK]),
    "a check that found something": lambda report: found(report, check=False),
    "a blocking check that found something": lambda report: found(report, check=True),
    "no check recorded": lambda report: changed(report, checks=[]),
    "the network in training": lambda report: of_another(report, backend="torch"),
    "a precision of a bundle, without what that ships, as version 0.2 said": lambda report: of_another(
        report, model=None
    ),
    "a gate by hand below the bundle's own": lambda report: claiming(report, fail_under=0.99),
    "a gate that every model passes": lambda report: changed(report, gate={"fail_under": 0.0, "max_drop": None}),
    "a gate by hand that leaves out the bundle's drop": lambda report: claiming(
        of_another(report, precision="int8", model=Model(ships="int8", image=(1, 4, 4)).model_dump()), max_drop=0.02
    ),
    "another precision than ships": lambda report: of_another(
        report, model=Model(ships="int8", image=(1, 4, 4)).model_dump()
    ),
}


@pytest.mark.parametrize("change", NEVER.values(), ids=NEVER)
def test_nothing_else_is_a_yes(passed, change):
    report = change(passed)
    assert not may_ship(report)
    text, tone = shown(report)
    assert re.search(r"\byes\b|\bship it\b(?!\?)", text, re.IGNORECASE) is None
    assert tone != "passed"
    steps = " ".join(f"{step.text} {step.type_}" for step in next_steps(report))
    assert "sign" not in steps
    assert "attest" not in steps


def test_a_gate_by_hand_that_asks_more_is_a_yes_and_so_is_that_of_a_parent_without_its_drop(passed):
    assert passed.artifact.precision == "fp32"
    assert may_ship(claiming(passed, fail_under=passed.gate.fail_under / 2, max_drop=0.02))


def test_the_first_screen_asks_in_the_order_in_which_people_do(passed):
    text = Tags(page.render(Account(passed))).text
    places = [text.index(question) for question in QUESTIONS]
    assert places == sorted(places)
    assert places[-1] < text.index("Accuracy under attack")


def test_it_names_the_attack_that_leaves_the_least_and_what_that_breaks(passed):
    worst = min(passed.attacks, key=lambda row: row.accuracy)
    _, robust, weakest, _ = answers(Account(passed))
    assert robust.answer == percent(passed.robust_accuracy.value)
    assert weakest.answer == worst.name
    assert f"{worst.broken:,} of {worst.attacked:,} images" in weakest.details[0]


def test_of_a_cascade_it_names_the_stage_that_breaks_most(passed):
    row = passed.attacks[0].model_dump()
    stages = [
        {**row, "name": name, "cascade": True, "broken": broken} for name, broken in (("apgd-ce", 9), ("fab-t", 2))
    ]
    total = {**row, "name": "aa", "accuracy": 0.1, "broken": 11}
    _, _, weakest, _ = answers(Account(changed(passed, attacks=[*stages, total])))
    assert weakest.answer == "aa"
    assert "most of them, 9, by its stage apgd-ce" in weakest.details


def test_attacks_that_leave_the_same_are_named_together(passed):
    rows = [
        {**row.model_dump(), "accuracy": accuracy}
        for row, accuracy in zip(passed.attacks, (0.4, 0.5, 0.4), strict=True)
    ]
    weakest = answers(Account(changed(passed, attacks=rows)))[2]
    assert weakest.answer == "fgsm, cw"
    assert weakest.details[0].startswith("each leaves 40.0 %")
    assert weakest.details[1] == "alone: pgd 50.0 %"


def test_an_attack_that_breaks_nothing_is_not_said_to_break_it(passed):
    rows = [{**row.model_dump(), "broken": 0} for row in passed.attacks]
    assert answers(Account(changed(passed, attacks=rows)))[2].answer == "Under none that ran"
    bare = changed(passed, attacks=[], robust_accuracy=None)
    assert [each.answer for each in answers(Account(bare))[1:3]] == ["Not measured", "No attack ran"]


def test_a_change_is_told_where_another_run_is_known_and_how_to_name_one_elsewhere(made, passed):
    alone = Account(changed(passed, paired=None))
    assert answers(alone)[3].answer == "No other run is known"
    assert "--against DIR" in answers(alone)[3].details[0]
    assert answers(Account(passed))[3].answer.endswith(" points")
    for other, word in (("other", " points"), ("farther", "Not comparable")):
        account = read_account(made / "run", [made / other])
        account = Account(changed(account.report, paired=None), others=account.others)
        assert answers(account)[3].answer.endswith(word)
    for ends, said in (((0.01, 0.1), "more robust"), ((-0.1, -0.01), "less robust"), ((-0.1, 0.1), "no change")):
        paired = {**passed.paired.model_dump(), "ci95": ends}
        assert answers(Account(changed(passed, paired=paired)))[3].details[0].startswith(said)


def steps_of(report):
    return [f"{step.text}: {step.type_}" for step in next_steps(report)]


def test_what_to_do_next_follows_from_the_run(passed):
    value = passed.robust_accuracy.value
    low, high = passed.robust_accuracy.ci95
    few = steps_of(changed(passed, verdict="measured", gate=NO_GATE))
    assert f"Judge more images: the 95 % interval is {100 * (high - low):.1f} points wide" in few[0]
    narrow = {"value": value, "ci95": (value - 0.02, value + 0.02)}
    measured = steps_of(changed(passed, verdict="measured", gate=NO_GATE, robust_accuracy=narrow))
    low = value - 0.02
    assert f"none above {percent(low)} can pass" in measured[0]
    assert "--attacks aa" in measured[1]
    weak = {"value": 0.05, "ci95": (0.03, 0.08)}
    measured = steps_of(changed(passed, verdict="measured", gate=NO_GATE, robust_accuracy=weak))
    assert "--fail-under" not in measured[0]
    failed = steps_of(changed(passed, verdict="failed", gate={"fail_under": 0.999, "max_drop": None}))
    assert f"{100 * (0.999 - value):.1f} points below the gate" in failed[0]
    blocked = steps_of(changed(passed, verdict="inconclusive", warnings=[NOTE, BLOCK]))
    assert [step.partition(":")[0] for step in blocked[:2]] == [
        "Resolve what agreement found",
        "Resolve what pgd-over-aa found",
    ]
    spans = steps_of(changed(passed, verdict="inconclusive", gate={"fail_under": value + 0.01, "max_drop": None}))
    assert "Judge more images: about" in spans[0]
    assert any("sign BUNDLE" in step for step in steps_of(passed))


def test_the_images_that_decide_a_gate_bring_its_interval_off_it():
    from runtime.statistics import wilson

    for value, gate in ((0.7, 0.65), (0.3, 0.32)):
        n = images_to_decide(value, gate)
        low, high = wilson(round(value * n * 1.1), round(n * 1.1))
        assert not low < gate < high
        few = round(n / 2)
        low, high = wilson(round(value * few), few)
        assert low < gate < high
    assert images_to_decide(0.5, 0.5) is None
    assert images_to_decide(0.5, 0.500001) is None


def test_a_class_that_is_wrong_without_any_attack_is_called_out(passed):
    rows = [row.model_dump() for row in passed.per_class]
    rows[1] |= {"n": 200, "clean": 0.16, "robust": 0.06}
    report = changed(passed, per_class=rows, clean={**passed.clean.model_dump(), "accuracy": 0.81})
    assert [row.label for row in weak_classes(report)] == [1]
    assert "16.0 % clean, 6.0 % robust (200 images)" in Tags(page.render(Account(report))).text
    assert "16.0 % clean" in markdown.render(Account(report))
    rows[1] |= {"n": 5}
    assert weak_classes(changed(report, per_class=rows)) == []
    assert weak_classes(passed) == []


def test_the_page_says_what_is_known_of_the_model_and_nothing_else(passed):
    assert passed.artifact.model.ships == "fp32"
    model = Model(
        architecture="resnet18, width 0.25", method="adaad", teacher="big", teacher_architecture="wideresnet, depth 34",
        weights=700_272, sizes={"fp32": 2_810_892, "int8": 737_037}, ships="fp32", image=(1, 28, 28),
    )  # fmt: skip
    facts = dict(model_facts(Account(of_another(passed, model=model.model_dump()))))
    assert facts["Parameters"] == "700 k"
    assert facts["Size"] == "2.8 MB in fp32, 0.7 MB in int8"
    assert facts["Teacher"] == "big (wideresnet, depth 34)"
    assert facts["Latency"].startswith("not measured")
    unknown = dict(model_facts(Account(of_another(passed, model=None))))
    assert unknown.keys() == {"Classes", "Latency", "Clean to robust"}
    assert [count(number) for number in (7, 4066, 11_173_962)] == ["7", "4.07 k", "11.2 M"]


def test_what_a_run_does_not_show_is_said(passed):
    model = Model(
        architecture="resnet18", teacher="t", teacher_architecture="resnet18", sizes={"fp32": 1, "int8": 1},
        ships="fp32", image=(1, 28, 28),
    )  # fmt: skip
    rows = [{**row.model_dump(), "accuracy": 0.5 + 0.004 * i} for i, row in enumerate(passed.attacks)]
    said = " ".join(limits(changed(of_another(passed, model=model.model_dump()), attacks=rows)))
    for words in (
        "28 x 28 pixels",
        "same network (resnet18)",
        "also holds int8",
        "within 0.8 points",
        "AutoAttack did",
    ):
        assert words in said
    alone = model.model_copy(update={"sizes": {"fp32": 1}})
    assert "does not show what int8 costs" in " ".join(limits(of_another(passed, model=alone.model_dump())))
    other = Model(architecture="resnet18", teacher_architecture="wideresnet", ships="fp32", image=(3, 224, 224))
    rows[0]["accuracy"] = 0.9
    said = " ".join(limits(changed(of_another(passed, model=other.model_dump()), attacks=rows)))
    for words in ("pixels", "same network", "also holds", "of each other"):
        assert words not in said


def test_an_answer_has_no_more_to_say_than_its_reasons(passed):
    measured = shipping(changed(passed, verdict="measured", gate=NO_GATE, reasons=["no gate: nothing to pass or fail"]))
    assert measured.details == ("nothing was required, so nothing passed or failed",)
    twice = shipping(changed(passed, verdict="inconclusive", warnings=[BLOCK], reasons=[BLOCK["message"], "open"]))
    assert twice.details == (BLOCK["message"], "open")


def test_a_model_that_is_right_on_no_image_does_not_seem_to_survive_attacks(passed):
    rows = [{**row.model_dump(), "attacked": 0, "broken": 0, "accuracy": 0.0} for row in passed.attacks]
    assert answers(Account(changed(passed, attacks=rows)))[2].answer == "Nothing to attack"
