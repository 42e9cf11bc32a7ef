"""Static pictures for papers, from the same stored results as the page."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from landscape_lab.analysis import GradientSimilarity, Spectrum, Surface
from landscape_lab.errors import InputError
from landscape_lab.figures import (
    QualityPanel,
    SimilarityPanel,
    feature_quality,
    gradient_similarity,
    hessian_density,
    save,
    surfaces,
    trajectories,
)
from landscape_lab.figures.style import house_style
from landscape_lab.paper_figures import quality_panel
from landscape_lab.report.curvature import subset_of
from landscape_lab.report.results import Results, class_title, read_results
from landscape_lab.report.trajectories import best_path
from landscape_lab.run import Run

__all__ = ["draw_pictures"]

MOST = 4  # runs side by side in one picture
EPOCHS = 5  # in a picture of gradients


def draw_pictures(
    runs: Mapping[str, Run],
    folder: Path,
    *,
    style: Path | None = None,
    formats: Sequence[str] = ("png", "pdf", "svg"),
) -> list[Path]:
    """Draw what is stored in some runs: a file a subject, or one for each run where they do not fit together.

    Args:
        runs: what each is called → the run.
        folder: where the pictures go.
        style: a matplotlib style sheet that is put over ours.
        formats: of ``png``, ``pdf``, ``svg``.

    Returns:
        The files.

    Raises:
        InputError: there is no run, the style sheet cannot be used, or a format is unknown.
    """
    found = read_results(runs)
    files: list[Path] = []
    with house_style(style):
        for name, figure in _figures(found):
            files += save(figure, folder / name, formats)
    return files


def _figures(found: Sequence[Results]) -> Iterator[tuple[str, Figure]]:
    for start in range(0, len(found), MOST):
        part = found[start : start + MOST]
        number = "" if len(found) <= MOST else f"-{start // MOST + 1}"
        panels = list(_quality(part))
        if panels:
            yield f"feature-quality{number}", feature_quality(panels)
        yield from _gradients(part, number)
        yield from _densities(part, number)
    for results in found:
        name = _file_name(results.label)
        for stored in results.of(Surface):
            if len(stored.result.x) > 1:
                title = results.label if stored.epoch is None else f"{results.label}, epoch {stored.epoch}"
                yield f"{name}/{stored.name.replace('/', '-')}", surfaces(stored.result, title=title)
        path = best_path(results)
        if path is not None:
            yield f"{name}/trajectory", trajectories({results.label: path})


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", label).strip(".-") or "run"


def _quality(found: Sequence[Results]) -> Iterator[QualityPanel]:
    """A panel for each run that recorded the quality of its features."""
    for results in found:
        with contextlib.suppress(InputError):
            yield quality_panel(results.run, results.label)


def _gradients(part: Sequence[Results], number: str) -> Iterator[tuple[str, Figure]]:
    panels: list[SimilarityPanel] = []
    for results in part:
        entries = [s for s in results.of(GradientSimilarity) if s.settings.get("parameters") == "encoder"]
        if entries:
            last = len(entries) - 1
            chosen = [entries[place] for place in sorted({round(k * last / (EPOCHS - 1)) for k in range(EPOCHS)})]
            chosen = [stored for stored in chosen if stored.result.classes == entries[-1].result.classes]
            epochs = tuple(stored.epoch or 0 for stored in chosen)
            panels.append(SimilarityPanel(results.label, epochs, tuple(stored.result for stored in chosen)))
    for classes in dict.fromkeys(panel.similarities[0].classes for panel in panels):
        same = [panel for panel in panels if panel.similarities[0].classes == classes]
        names = {c: class_title(c, part[0].class_names) for c in classes}
        suffix = "" if len({panel.similarities[0].classes for panel in panels}) == 1 else f"-{len(classes)}-classes"
        yield f"gradient-similarity{suffix}{number}", gradient_similarity(same, names)


def _densities(part: Sequence[Results], number: str) -> Iterator[tuple[str, Figure]]:
    rows: dict[str, dict[str, Spectrum]] = {}
    for results in part:
        entries = [s for s in results.of(Spectrum, "hessian") if s.result.density and s.result.operator == "hessian"]
        last = max((stored.epoch or 0 for stored in entries), default=None)
        spectra = {subset_of(stored): stored.result for stored in entries if stored.epoch == last}
        if spectra:
            rows[results.label] = spectra
    common = [name for name in next(iter(rows.values()), {}) if all(name in row for row in rows.values())]
    if common:
        yield (
            f"hessian-density{number}",
            hessian_density({label: {name: row[name] for name in common} for label, row in rows.items()}),
        )
