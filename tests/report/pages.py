"""What a page must have."""

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
    "machine": "Machine and artifact",
    "repeat": "How to repeat it",
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
