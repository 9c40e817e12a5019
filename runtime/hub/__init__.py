"""Bundles on the Hugging Face Hub: fetched by the digests of their manifest, at one commit."""
