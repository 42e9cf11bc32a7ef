"""What a comparison looks like, read back by other programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import junitparser
import pytest
import torch
import xmlschema
from guard_fixtures import made_up

from landscape_lab.guard import Comparison, compare, tolerances_of
from landscape_lab.guard.formats import github_annotations, junit, markdown

DOCS = Path(__file__).parent.parent.parent / "docs" / "ci"
NASTY = 'a|b <c> & "d"\n::error::\x00\x1b %0A, e:f'


@pytest.fixture
def comparison() -> Comparison:
    probes = torch.tensor([9.9, 10.1, 10.0], dtype=torch.float64)
    wide = torch.tensor([2.0, 26.0, 9.0], dtype=torch.float64)
    parts = [
        compare(made_up(10.0, probes), new, tolerances_of([])).verdicts[0]
        for new in (made_up(10.1, probes + 0.1), made_up(20.0, probes + 10), made_up(12.3, wide))
    ]
    from dataclasses import replace

    return Comparison(tuple(replace(one, subset=f"{NASTY}{k}") for k, one in enumerate(parts)), ("a note",))


def test_junit_is_read_by_a_real_parser(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "j.xml").write_text(junit({"base": comparison}, 2.0))
    suites = list(junitparser.JUnitXml.fromfile(str(tmp_path / "j.xml")))
    (suite,) = suites
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (3, 1, 1, 0)
    kinds = [[type(part) for part in case.result] for case in suite]
    assert kinds == [[], [junitparser.Failure], [junitparser.Skipped]]
    assert all(case.name and case.classname and case.time is not None for case in suite)
    assert "trace of the Hessian" in suite.__iter__().__next__().name or list(suite)[1].result[0].message


@pytest.fixture(scope="module")
def schema() -> xmlschema.XMLSchema10:
    return xmlschema.XMLSchema10(str(Path(__file__).parent / "junit.xsd"))


def test_junit_is_valid_by_the_schema(schema: xmlschema.XMLSchema10, comparison: Comparison) -> None:
    schema.validate(junit({"base": comparison, NASTY: comparison}, 2.0))
    schema.validate(junit({"tiny": comparison}, 1e-9))
    schema.validate(junit({"empty": Comparison((), ())}))
    schema.validate(junit({}))


def test_the_schema_is_that_of_other_programs(schema: xmlschema.XMLSchema10, tmp_path: Path) -> None:
    """What pytest writes, with every kind of outcome, is valid by it."""
    (tmp_path / "test_each.py").write_text(
        "import pytest\n"
        "def test_good(record_property): record_property('key', 1); print('out')\n"
        "def test_bad(): assert 1 == 2, '<&>'\n"
        "@pytest.mark.skip(reason='why')\n"
        "def test_skipped(): pass\n"
        "@pytest.fixture\n"
        "def broken(): raise RuntimeError\n"
        "def test_error(broken): pass\n"
    )
    options = ["-p", "no:cacheprovider", "-o", "junit_family=xunit2", "-o", "junit_logging=all", "--junitxml=j.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options], cwd=tmp_path, capture_output=True, text=True
    )
    written = (tmp_path / "j.xml").read_text()
    assert all(f"<{name}" in written for name in ("failure", "error", "skipped", "property", "system-out")), done.stdout
    schema.validate(written)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (' tests="3"', ""),
        (' tests="3"', ' tests="-3"'),
        (' failures="1"', ' failures="one"'),
        (' errors="0"', ' errors="0" broken="1"'),
        (' time="2.000"', ' time="2.0 s"'),
        (' time="2.000"', ' time="2e-05"'),
        (' time="0.000"', ' time="-1"'),
        (' classname="sharpness.base"', ""),
        (' classname="sharpness.base"', ' classname=""'),
        ("testcase", "case"),
        ("failure ", "inconclusive "),
        ("<testsuites>", '<testsuites xmlns="urn:other">'),
        ("</testcase>", "<skipped /></testcase>"),
    ],
    ids=str,
)
def test_what_is_wrong_is_invalid(
    schema: xmlschema.XMLSchema10, comparison: Comparison, right: str, wrong: str
) -> None:
    written = junit({"base": comparison}, 2.0)
    broken = written.replace(right, wrong) if right == "testcase" else written.replace(right, wrong, 1)
    broken = broken.replace("</failure>", "</inconclusive>") if "inconclusive" in wrong else broken
    assert broken != written
    ElementTree.fromstring(broken.encode())  # still XML
    assert not schema.is_valid(broken)


def test_annotations_are_one_line_each(comparison: Comparison) -> None:
    lines = github_annotations(comparison, "base,line.json").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning"]
    for line in lines:
        properties = line.split(" ", 1)[1].split("::")[0]
        assert properties.count(",") == 1
        assert properties.startswith("file=base%2Cline.json,title=")
        assert "%0A" in line
        assert "e%3Af" in properties


def test_markdown_keeps_its_cells(comparison: Comparison) -> None:
    rows = [line for line in markdown(comparison).splitlines() if line.startswith("|")]
    bare = [row.replace("\\\\", "").replace("\\|", "") for row in rows]
    assert {row.count("|") for row in bare} == {9}
    assert sum("**FAIL**" in row for row in rows) == 1


def test_the_workflows_are_linted() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    pytest.importorskip("check_jsonschema")
    for schema, names in (("github-workflows", ["sharpness.yml", "caller.yml"]), ("gitlab-ci", ["gitlab.yml"])):
        transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
        done = subprocess.run(
            [*check, f"vendor.{schema}", *transform, *(str(DOCS / name) for name in names)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_are_safe() -> None:
    zizmor = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    if zizmor is None:
        pytest.skip("zizmor is not installed")
    done = subprocess.run(
        [zizmor, "--offline", "--no-progress", "--min-severity", "medium", *map(str, DOCS.glob("[cs]*.yml"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
