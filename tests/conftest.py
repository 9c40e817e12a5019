"""What holds for all tests."""

from hypothesis import settings

# A deadline would make a busy machine fail them: no test here is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
