from string import Template

from everlearn.report.page import PAGE


def test_the_frame_has_just_the_places_that_are_filled():
    assert set(Template(PAGE).get_identifiers()) == {"title", "lead", "body"}
    assert "prefers-color-scheme: dark" in PAGE
    assert 'name="viewport"' in PAGE
