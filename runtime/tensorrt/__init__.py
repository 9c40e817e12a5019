"""TensorRT: builds, stores and runs engines on this device."""
