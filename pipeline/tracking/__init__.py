"""Where a training run is logged, besides its directory."""
