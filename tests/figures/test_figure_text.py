from landscape_lab.figures import text
from landscape_lab.figures.style import paper_style


def test_no_line_is_longer_than_asked():
    with paper_style():
        words = "a few rather ordinary words, and one Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüssel"
        lines = text.wrapped(words, 1.5, 9).split("\n")
        assert len(lines) > 2
        assert all(text.size_of(line, 9)[0] <= 1.5 for line in lines)
        assert lines[-1].endswith("…")


def test_capital_keeps_the_rest():
    assert text.capital("bMW X5") == "BMW X5"
    assert text.capital("") == ""
