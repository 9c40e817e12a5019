"""What can be measured on a GPU alone, in one go and one file: `python -m benchmarks.gpu`; docs/gpu.md."""
