"""What a recipe may say, and how its file is read."""
