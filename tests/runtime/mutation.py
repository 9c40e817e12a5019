"""Mutated input: bytes edited at random, and how a reader must take them.

A reader may refuse with a typed error, or give a right answer; anything else fails the test, which then shows the
smallest edit that does it.
"""

import re
from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime.errors import EdgeproofError

TOKENS = (
    b"", b"0", b"-1", b"1", b"2", b"255", b"65536", b"4294967296", b"9223372036854775807", b"-9223372036854775809",
    b"9" * 400, b"1e999", b"NaN", b"inf", b"1e-400", b"0.5", b"true", b"null", b"[]", b"{}", b'""', b'"\\u0000"',
    b'"\\ud800"', b"/etc/passwd", b"../x", b"..", b"x" * 300, b"\xff", b"\x00",
)  # fmt: skip
"""What replaces a word or number of a text."""
WORD = re.compile(rb"[\w.+-]+")


def flip(data, place, amount, piece):
    return data[:place] + bytes([data[place] ^ (1 << amount % 8)]) + data[place + 1 :]


def overwrite(data, place, amount, piece):
    return data[:place] + piece + data[place + len(piece) :]


def insert(data, place, amount, piece):
    return data[:place] + piece + data[place:]


def delete(data, place, amount, piece):
    return data[:place] + data[place + 1 + amount :]


def repeat(data, place, amount, piece):
    return data[: place + amount] + data[place:]


def cut(data, place, amount, piece):
    return data[:place]


def replace_word(data, place, amount, piece):
    words = list(WORD.finditer(data))
    if not words:
        return data
    start, end = words[place % len(words)].span()
    return data[:start] + TOKENS[amount % len(TOKENS)] + data[end:]


BYTES = (flip, flip, overwrite, insert, delete, repeat, cut)
TEXT = (replace_word, replace_word, replace_word, *BYTES)


@st.composite
def mutated(draw, seeds, edits):
    """Draw (name, bytes): one of the seeds, edited one to four times."""
    name = draw(st.sampled_from(sorted(seeds)))
    data = seeds[name]
    for _ in range(draw(st.integers(1, 4))):
        if data:
            place = draw(st.integers(0, len(data) - 1))
            data = draw(st.sampled_from(edits))(data, place, draw(st.integers(0, 63)), draw(st.binary(max_size=8)))
    return name, data


def explore(seeds, check, examples, edits=BYTES):
    """Let `check(name, data)` read `examples` mutations; return how often it did what.

    `check` raises an EdgeproofError for what it refuses, and asserts that the rest is right. Hypothesis takes constants
    from the modules that are loaded, so the tests that ran before change what it draws. A few hundred mutations may
    therefore hold none that stays right, and no test may count on one.
    """
    seen = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(seeds, edits))
    def run(drawn):
        refused = None
        try:
            check(*drawn)
        except EdgeproofError as error:
            refused = error
        if refused:
            assert refused.exit_code in (2, 3, 4, 5), refused
            assert refused.message.replace("\n", "").isprintable(), refused
        seen["refused" if refused else "right"] += 1

    run()
    assert seen.total() >= examples
    return seen
