"""Trackers to which a training run is logged, besides its directory."""
