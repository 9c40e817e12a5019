"""The schemas of the files that commands write: run.json, report.json, bench.json, gpu-check.json."""
