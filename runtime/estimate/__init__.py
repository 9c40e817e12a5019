"""What a run announces before it begins: its work, the most passes that it takes, and about how long."""
