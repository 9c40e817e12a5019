"""The options that commands share, and the records that they fill."""
