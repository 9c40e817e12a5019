"""The reports of a run for people and for other tools, such as a page, a Markdown summary and JUnit XML."""
