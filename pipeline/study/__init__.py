"""Studies: tables of training runs."""
