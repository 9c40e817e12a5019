"""How a session is asked: in batches that fit its memory, of few sizes, and kept full."""
