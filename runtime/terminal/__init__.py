"""What a person sees on a terminal while work is done: bars, log lines; and a reader that has gone."""
