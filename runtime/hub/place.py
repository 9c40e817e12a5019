"""Places on the Hub, written as hf://ORG/NAME or hf://ORG/NAME@REVISION."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "hf://"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_WRITTEN = re.compile(rf"{SCHEME}({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,199}}))?")


@dataclass(frozen=True)
class HubPlace:
    """A model's repository, and a branch, tag or commit of it; None is the main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return the place as text."""
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str) -> HubPlace:
        """Parse hf://ORG/NAME or hf://ORG/NAME@REVISION.

        Raises:
            ValueError: the text has another form.

        """
        match = _WRITTEN.fullmatch(text)
        if not match or ".." in text:
            raise ValueError(f"{text!r} is not written as hf://ORG/NAME or hf://ORG/NAME@REVISION")
        return cls(match[1], match[2])
