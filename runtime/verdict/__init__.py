"""The verdict: the figures from the evidence, the comparison, the gate, and the run directory."""
