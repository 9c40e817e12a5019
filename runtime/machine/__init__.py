"""Facts about this machine: board, GPU, driver, clocks, temperature, power."""
