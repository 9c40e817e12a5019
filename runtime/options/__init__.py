"""Options of commands: from records, in groups on a help page, and read into what they name."""
