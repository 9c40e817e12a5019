"""What people and their tools read of a run: a page, a Markdown summary, JUnit XML, all from its directory."""
