"""What ships: its manifest, its digests and signature, and what a device accepts and installs."""
