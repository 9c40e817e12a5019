"""Rules of operations that pick numbers by their places, and put them back."""
