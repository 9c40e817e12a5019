"""What is done in one place, so that all output is alike and nothing from outside is taken for more than text."""

import re

import pytest

from tests.paths import ROOT

PLACES = {
    r"from rich\.table": {"runtime/report/tables.py"},  # no other table reads a text as markup
    r":\.\d%\}": set(),  # percent is runtime.words.percent
    r"255 \* eps": {"runtime/words.py"},  # a radius is runtime.words.radius
    # A new directory is locked as long as it is filled, without waiting: whoever can take the lock may remove it.
    r"fcntl": {"runtime/locks.py", "runtime/files.py"},
    r"O_NOFOLLOW": {"runtime/files.py"},
    r"np\.savez\(": {"runtime/files.py"},
    # A table of Markdown; the metadata of a model card.
    r"\"---\"": {"runtime/markdown.py", "runtime/bundle/model_card.py"},
    r"stderr\.write": {"runtime/terminal/log.py"},
    r"splitlines\(\)\[0\]|partition\(\"\\n\"\)|chr\(10\)": {"runtime/errors.py"},  # an error's first line
    r"external_data_helper\._": set(),
    r"%Y-%m-%dT": {"runtime/words.py"},
    r"isoformat\(": set(),  # a time is runtime.words.timestamp
    r":\.\df\} points": {"runtime/words.py"},
    r"FATAL = ": {"runtime/backends/providers.py"},
    r"pip install \'": {"runtime/errors.py"},
    r"option\(\s*\"--data-root\"": set(),  # a field of VerifyOptions
}


@pytest.mark.parametrize("pattern", PLACES)
def test_a_mechanism_is_written_once(pattern):
    modules = [path for package in ("runtime", "export", "pipeline") for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in modules if re.search(pattern, path.read_text())}
    assert found == PLACES[pattern]
