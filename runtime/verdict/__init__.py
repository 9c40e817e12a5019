"""From evidence to a verdict: figures, comparison, gate, and the run directory that holds them."""
