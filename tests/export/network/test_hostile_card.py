"""The card of a bundle whose every text somebody else wrote."""

import re

import yaml
from markdown_it import MarkdownIt

from runtime.bundle.manifest import Calibrated, Graph, InputShape, Manifest, Packed, Provenance, Reference
from runtime.bundle.model_card import model_card
from runtime.spec import DataRecord, ThreatModel
from tests.runtime.test_hostile_texts import HOSTILE, assert_harmless

DATA = DataRecord(name=HOSTILE, n=60, sha256="0" * 64)
FILE = {"sha256": "0" * 64, "size": 1}
ORIGINS = {
    "provenance": Provenance(
        recipe={}, recipe_sha256="0" * 64, checkpoint_sha256="0" * 64, teacher_sha256=None, training_data=DATA,
        software={HOSTILE: HOSTILE},
    ),
    "packed": Packed(file=HOSTILE, sha256="0" * 64, opset=18, changes=(HOSTILE,)),
}  # fmt: skip


def test_a_card_shows_texts_and_is_made_of_none():
    for origin, says in ORIGINS.items():
        graph = Graph(
            forward="a.onnx", gradient=None, opset=18, staircases=(HOSTILE,),
            calibration=Calibrated(data=DATA, method=HOSTILE, kept_fp16=(HOSTILE,)),
        )  # fmt: skip
        card = model_card(
            Manifest(
                name="tiny", created=HOSTILE, input=InputShape(channels=1, height=4, width=4), evaluation=DATA,
                classes=(HOSTILE, "b"), threat_model=ThreatModel(), ships="int8", graphs={"int8": graph},
                reference=Reference(checkpoint=HOSTILE, n=60, clean=0.5, pgd=0.5),
                files={"a.onnx": FILE, "evaluation.npz": FILE}, **{origin: says},
            )
        )  # fmt: skip
        assert_harmless(card)
        _, metadata, text = card.split("---\n", 2)
        assert yaml.safe_load(metadata)["model-index"][0]["results"][0]["dataset"]["name"].startswith("../../esc [/x]")
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        assert not re.search(r"<(script|img)|<em>a", html)
        for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
            rows = re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
            assert len({len(re.findall(r"<t[hd]", row)) for row in rows}) == 1
        assert html.count("<h1>") == 1
