"""What a person types: one file a command, and the options that several share."""
