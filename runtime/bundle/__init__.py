"""Bundles: manifest, digests and signature, and how a device accepts and installs them."""
