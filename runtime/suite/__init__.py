"""The attack suite: plans and runs the attacks unit by unit, and collects the evidence on each image."""
