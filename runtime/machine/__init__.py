"""What this device is: board, GPU, driver, clocks, temperature, power."""
