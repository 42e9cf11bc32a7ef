import base64
import re
from html.parser import HTMLParser

import pytest
from figure_results import HARSH, bowl

from landscape_lab.errors import InputError
from landscape_lab.figures import Table, save, surfaces, write_page


class Elements(HTMLParser):
    """All elements with their attributes, the text, and whether every element is closed."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    save(surfaces(bowl({"all": 1.0})), folder / "figures" / "fig 1", ["png", "pdf"])
    return folder


@pytest.fixture
def study(folder):
    stem, target = folder / "figures" / "fig 1", folder / "index.html"

    def write(path=target, **changes):
        content = {
            "title": f"A study of {HARSH}",
            "introduction": f"One.\n\nTwo {HARSH}.",
            "figures": [(f"Fig. 1 {HARSH}", stem.with_suffix(".png"), f"What it shows {HARSH}.")],
            "tables": [
                Table("Accuracy", (HARSH, "All", "Few"), ((HARSH, "86.3 ± 0.2", "–"), ("b", "70", "1.5e−3")), HARSH)
            ],
            "commands": [f"train --name '{HARSH}'"],
            "environment": {"torch": "2.13", HARSH: 3},
        }
        write_page(path, **{**content, **changes})
        return path.read_text()

    return write


def test_everything_is_escaped_and_every_element_closed(study):
    text = study()
    assert "<b>" not in text
    page = Elements(text)
    assert not page.open
    assert "".join(page.text).count(HARSH) >= 9
    assert HARSH in page.all("img")[0]["alt"]


def test_the_page_needs_nothing_else(study):
    page = Elements(study())
    assert not page.all("script")
    assert not page.all("link")
    (image,) = page.all("img")
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert int(image["width"]) > int(image["height"]) / 3
    assert not re.search(r"url\(|@import|https?://", study())


def test_files_beside_the_page_are_linked_if_they_exist(study):
    links = [attributes["href"] for attributes in Elements(study()).all("a")]
    assert [link for link in links if not link.startswith("#")] == ["figures/fig%201.png", "figures/fig%201.pdf"]
    page = Elements(study())
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_numbers_are_set_flush_right(study):
    page = Elements(study())
    assert [attributes.get("class") for attributes in page.all("td")] == ["number"] * 4
    assert [attributes.get("class") for attributes in page.all("th")] == [None, "number", "number", None, None]


def test_the_same_study_gives_the_same_bytes(study, tmp_path):
    assert study() == study()


def test_empty_parts_are_left_out(study):
    page = study(figures=[], tables=[], commands=[], environment={}, introduction="")
    assert not Elements(page).all("section")


def test_both_colour_schemes_are_there(study):
    assert "prefers-color-scheme: dark" in study()


def test_refusals(study, tmp_path):
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        study(figures=[("x", tmp_path / "none.png", "")])
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(InputError, match=r"bad\.png is not a PNG"):
        study(figures=[("x", tmp_path / "bad.png", "")])
    with pytest.raises(ValueError, match="must have 2 cells, got 1"):
        study(tables=[Table("t", ("a", "b"), (("1",),))])
