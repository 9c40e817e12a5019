"""From attacks to evidence: which run, unit by unit, and what each image stood."""
