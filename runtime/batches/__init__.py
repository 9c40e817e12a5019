"""Sessions that reshape batches so that they fit into memory, have few sizes and stay full."""
