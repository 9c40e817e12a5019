"""What a page must have."""

from html.parser import HTMLParser

QUESTIONS = [
    "May I ship it?",
    "How robust is it?",
    "Under which attack does it fall?",
    "What changed since the last run?",
    "What should I do next?",
]
SECTIONS = {
    "accuracy": "Accuracy under attack",
    "comparison": "Comparison",
    "radius": "Over eps",
    "classes": "By class",
    "confusion": "Confusion under attack",
    "cost": "Time per attack",
    "latency": "Latency",
    "checks": "Checks",
    "gallery": "Gallery",
    "limits": "What this run does not show",
    "machine": "Machine and artifact",
    "repeat": "How to repeat it",
    "words": "Words on this page",
}

BENCH = {
    "schema": "edgeproof.bench/1",
    "name": "tiny",
    "bundle_version": 1,
    "authenticated": False,
    "data": "tiny/test",
    "backend": "ort",
    "provider": "cpu",
    "runs": [
        {
            "precision": precision, "sha256": "0" * 64, "engine_sha256": None, "batch": batch, "queries": 100,
            "seconds": 1.0, "images_per_second": 1000.0 * batch, "celsius": {}, "megahertz": {}, "throttled": throttled,
            "latency_ms": {
                "mean": 1.1, "least": 0.9, "p50": 1.0, "p90": 1.5, "p99": 3.0, "most": 9.0, "p90_at_most": 2.0,
            },
            "power": {"rails": {}, "of": ["VDD_IN"], "watts": 5.0, "joules_an_image": 0.005} if batch == 1 else None,
            "rules": {"scenario": "SingleStream", "seconds": False, "samples": False},
        }
        for precision in ("fp32", "int8") for batch, throttled in ((1, []), (8, ["cpufreq-cpu0"]))
    ],
    "warnings": ["power.draw is not measured here"],
    "device": {"cpu": "another"},
    "software": {},
    "started": "2026-01-01T00:00:00Z",
}  # fmt: skip
"""bench.json of two precisions at two batch sizes; figures made up."""

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Tags(HTMLParser):
    """Checks that every element is closed in its turn; keeps ids, attributes and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.text, self.faults = [], [], [], "", []
        self.headings = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src", "xlink:href") if name in found]
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open = self.open if tag in VOID else self.open[:-1]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
