"""Before a run: what it will do, how many passes that is at most, and about how long they take."""
