"""TensorRT: engines built, kept and run on this device."""
