"""Checks before a figure is believed."""
