"""A GPU's engines beside the CPU, image by image."""
