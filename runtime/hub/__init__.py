"""Bundles on the Hugging Face Hub: fetched from one commit, and pushed in one."""
