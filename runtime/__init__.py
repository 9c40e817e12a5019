"""Verify the artifact that ships: attacks, verdict and report, on the device, without PyTorch."""
