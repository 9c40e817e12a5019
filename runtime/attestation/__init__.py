"""Signed attestations of verdicts, which other tools can read, and the policy that a device applies to them."""
