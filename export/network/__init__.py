"""A PyTorch network as ONNX: the two modules here that import torch, and the way to a bundle."""
