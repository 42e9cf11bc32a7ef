"""A comparison as text: Markdown for pull requests, JUnit XML, annotations of GitHub Actions, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from landscape_lab.guard.compare import Comparison, Verdict
from landscape_lab.guard.measured import Measurement
from landscape_lab.guard.settings import METRICS
from landscape_lab.numbers import MINUS, number

__all__ = [
    "HEADER",
    "changes",
    "content_of",
    "github_annotations",
    "headline",
    "junit",
    "markdown",
    "rows_of",
    "sentence",
]

HEADER = ("metric", "classes", "baseline", "now", "change", "95 % interval", "tolerance", "")
MARKS = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive"}


def headline(comparison: Comparison) -> str:
    """The answer in one line."""
    failed, unsure, whole = comparison.count("fail"), comparison.count("inconclusive"), len(comparison.verdicts)
    numbers = f"{whole} numbers" if whole != 1 else "1 number"
    if failed:
        return f"worse than the baseline: {failed} of {numbers} beyond tolerance and chance"
    if unsure:
        return f"inconclusive: {unsure} of {numbers} may be within tolerance or beyond it"
    return f"no worse than tolerated: {numbers}" if whole != 1 else "no worse than tolerated: 1 number"


def sentence(verdict: Verdict) -> str:
    """One number's answer in words."""
    what = f"{METRICS[verdict.metric].words} of {verdict.subset}"
    values = f"{number(verdict.before)} before, {number(verdict.now)} now"
    change, interval = changes(verdict)
    limit = f"tolerance {verdict.tolerance}"
    text = f"{what}: {values}, {change} (95 % interval {interval}; {limit}; p = {number(verdict.p_corrected, 2)})"
    return f"{text}; {verdict.reason}" if verdict.reason else text


def changes(verdict: Verdict) -> tuple[str, str]:
    """The change and its interval: per cent of the baseline, or units."""
    if verdict.unit == "ratio":
        told = [_signed(100 * (value - 1), 2) + " %" for value in (verdict.change, verdict.low, verdict.high)]
    else:
        told = [_signed(value) for value in (verdict.change, verdict.low, verdict.high)]
    return told[0], f"{told[1]} … {told[2]}"


def rows_of(comparison: Comparison) -> list[list[str]]:
    """A row for each number, under :data:`HEADER`."""
    return [
        [
            METRICS[one.metric].words,
            one.subset,
            number(one.before),
            number(one.now),
            *changes(one),
            one.tolerance,
            MARKS[one.outcome],
        ]
        for one in comparison.verdicts
    ]


def content_of(comparison: Comparison, before: Measurement, now: Measurement) -> dict[str, Any]:
    """Everything, for machines."""
    return {
        "outcome": comparison.outcome,
        "headline": headline(comparison),
        "baseline": dict(before.origin),
        "model": dict(now.origin),
        "notes": list(comparison.notes),
        "metrics": [asdict(one) for one in comparison.verdicts],
    }


def markdown(comparison: Comparison, title: str = "Sharpness") -> str:
    """A table for a pull request; a cell with bars or line breaks in it stays one cell."""
    lines = [
        f"### {_cell(title)}: {MARKS[comparison.outcome]}",
        "",
        _sentence_case(_cell(headline(comparison))) + ".",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "|".join([" --- ", " --- ", *[" ---: "] * 5, " --- "]) + "|",
    ]
    for row, verdict in zip(rows_of(comparison), comparison.verdicts, strict=True):
        cells = [_cell(cell) for cell in row]
        cells[-1] = f"**{cells[-1]}**" if verdict.outcome == "fail" else cells[-1]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {_cell(note)}" for note in comparison.notes)] if comparison.notes else []
    return "\n".join(lines) + "\n"


def github_annotations(comparison: Comparison, file: str = "") -> str:
    """Workflow commands that GitHub Actions shows beside the file: an error a failure, a warning where it is unsure."""
    kinds = {"fail": "error", "inconclusive": "warning"}
    lines = []
    for one in comparison.verdicts:
        if one.outcome in kinds:
            properties = {"file": file, "title": f"{METRICS[one.metric].words} of {one.subset}"}
            told = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
            lines.append(f"::{kinds[one.outcome]} {told}::{_data(sentence(one))}")
    return "".join(f"{line}\n" for line in lines)


def junit(comparisons: Mapping[str, Comparison], seconds: float = 0.0) -> str:
    """JUnit XML: a suite for each name, a test case for each number.

    What is inconclusive is skipped, with the reason: the format has no word for it.

    Args:
        comparisons: name → comparison.
        seconds: that they took together.
    """
    root = ElementTree.Element("testsuites")
    for name, comparison in comparisons.items():
        counts = {"tests": len(comparison.verdicts), "failures": comparison.count("fail"), "errors": 0}
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            {
                "name": _plain(f"sharpness.{name}"),
                **{key: str(value) for key, value in counts.items()},
                "skipped": str(comparison.count("inconclusive")),
                "time": f"{seconds / len(comparisons):.3f}",
            },
        )
        for one in comparison.verdicts:
            title = _plain(f"{one.metric}[{one.subset}]")
            case = ElementTree.SubElement(
                suite, "testcase", {"classname": _plain(f"sharpness.{name}"), "name": title, "time": "0.000"}
            )
            told = _plain(sentence(one))
            if one.outcome == "fail":
                failure = ElementTree.SubElement(case, "failure", {"message": told, "type": "sharper"})
                failure.text = told
            elif one.outcome == "inconclusive":
                ElementTree.SubElement(case, "skipped", {"message": f"inconclusive: {told}"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _signed(value: float, digits: int = 3) -> str:
    text = number(value, digits)
    return f"+{text}" if value > 0 and not text.startswith((MINUS, "+")) else text


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    flat = " ".join(text.split())
    for mark in "\\|`*_<>[]#":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _data(text: str) -> str:
    """Text as workflow commands escape it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _plain(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(
        c if c in "\t\n\r" or 0x20 <= ord(c) <= 0xD7FF or 0xE000 <= ord(c) <= 0xFFFD or ord(c) > 0xFFFF else "�"
        for c in text
    )
