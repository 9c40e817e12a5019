"""Plots of names in any writing."""

from pipeline.study.svg import draw


def test_names_that_matplotlibs_font_lacks_are_drawn_without_a_word(recwarn):
    names = ["猫", "قط", "бычок", "$x^$"]
    svg = draw("classes", "Accuracy by class", 2, lambda axes: axes.set_yticks(range(4), names))
    assert all(name in svg for name in names)
    assert not recwarn.list
