"""From a trained network to a bundle: the ONNX graph, the graph of its input gradient, digests."""
