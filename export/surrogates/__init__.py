"""What a gradient follows where the true one is 0: it passes straight through roundings, steps and choices."""
