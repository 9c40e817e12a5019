"""Train a robust student: data, networks, methods, the search, and the way to a bundle."""
