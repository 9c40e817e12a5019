"""Speed, power and heat of an artifact on this machine."""
