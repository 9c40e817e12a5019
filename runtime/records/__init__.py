"""The schemas of the files that commands leave: run.json, report.json, bench.json, gpu-check.json."""
