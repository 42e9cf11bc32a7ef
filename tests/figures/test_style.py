import subprocess
import sys

import matplotlib as mpl
import pytest
from figure_results import bowl
from matplotlib.figure import Figure

from landscape_lab.errors import InputError
from landscape_lab.figures import save, surfaces
from landscape_lab.figures.style import colours_of, in_paper_style


def test_all_formats_are_written_and_repeat_byte_for_byte(tmp_path):
    figure = surfaces(bowl({"head": 1.0, "tail": 50.0}, hole=True))
    first = save(figure, tmp_path / "a" / "fig.1")
    again = save(figure, tmp_path / "b" / "fig.1")
    redrawn = save(surfaces(bowl({"head": 1.0, "tail": 50.0}, hole=True)), tmp_path / "c" / "fig.1")
    assert [path.name for path in first] == ["fig.1.png", "fig.1.pdf", "fig.1.svg"]
    assert [path.read_bytes()[:4] for path in first] == [b"\x89PNG", b"%PDF", b"<?xm"]
    for one, two, three in zip(first, again, redrawn, strict=True):
        assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_files_name_no_date_and_no_program(tmp_path):
    paths = save(surfaces(bowl({"all": 1.0})), tmp_path / "x")
    for path in paths:
        content = path.read_bytes()
        assert b"CreationDate" not in content
        assert b"<dc:date>" not in content
        assert b"Matplotlib v" not in content


def test_unknown_format(tmp_path):
    with pytest.raises(InputError, match="unknown picture format 'bmp'"):
        save(Figure(), tmp_path / "x", ["png", "bmp"])
    assert not list(tmp_path.iterdir())


def test_the_callers_settings_neither_change_nor_matter(tmp_path):
    plain = save(surfaces(bowl({"all": 1.0})), tmp_path / "plain")
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        odd = save(surfaces(bowl({"all": 1.0})), tmp_path / "odd")
        assert dict(mpl.rcParams) == before
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in odd]


def test_settings_come_back_after_an_error():
    @in_paper_style
    def broken() -> Figure:
        raise RuntimeError("no")

    before = dict(mpl.rcParams)
    with pytest.raises(RuntimeError):
        broken()
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_imported():
    code = "import sys, landscape_lab.figures; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_colours_tell_names_apart():
    names = ["head", "tail", "all", "cat", "dog", "frog"]
    assert len(set(colours_of(names))) == len(names)
    assert colours_of(["tail"]) == colours_of(["head", "tail"])[1:]
