"""The options of commands: each in one place, and the records that they fill."""
