"""The keys of a recipe, and how its file is read."""
