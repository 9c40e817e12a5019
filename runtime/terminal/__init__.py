"""Output on a terminal during work: progress bars, log lines, and what to do if nobody reads them."""
