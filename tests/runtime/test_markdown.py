"""Markdown in which a text from outside is no more than text."""

import re
from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from runtime.markdown import code, escape, fenced, table

WORDS = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), min_size=1).map(str.strip).filter(bool)


def shown(text):
    """Return what a page shows of Markdown, where it holds no other element than those of a table."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    assert set(re.findall(r"<(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td", "p", "code"}
    return [unescape(cell) for cell in re.findall(r"<t[hd]>(?:<code>)?(.*?)(?:</code>)?</t[hd]>", html)]


@given(WORDS, WORDS)
@example("a|b", "*d* _e_ __f__ ~~g~~ <img src=x> [h](http://i) `j` \\ &amp; #1 @everyone")
def test_a_text_in_a_table_is_shown_as_it_is(one, other):
    cells = shown(table((escape(one), "b"), [(code(other), escape(one))]))
    assert cells == [" ".join(text.split()) for text in (one, "b", other, one)]


def test_a_name_stays_readable_where_nobody_renders_it():
    assert escape("mobilenet_v2 layer1.conv_0 (8/255)") == "mobilenet_v2 layer1.conv_0 (8/255)"


def test_figures_are_on_the_right():
    assert table(("a", "n"), [("x", "1")], left=1) == "| a | n |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize("inside", ["a ```` b", "```` a"])
def test_a_command_with_backticks_stays_inside_its_block(inside):
    assert fenced(inside) == f"`````sh\n{inside}\n`````"
