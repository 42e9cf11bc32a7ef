"""A run as TensorBoard event files: its metrics, its spectra as histograms, and the pictures of its results."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from landscape_lab.analysis import SpectralDensity, Spectrum
from landscape_lab.frames import metric_rows
from landscape_lab.report import Results, draw_pictures
from landscape_lab.report.curvature import subset_of
from landscape_lab.report.results import class_title
from landscape_lab.run import Run

try:
    from torch.utils.tensorboard import SummaryWriter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"landscape_lab.integrations.tensorboard needs {error.name}: pip install 'landscape-lab[tensorboard]'",
        name=error.name,
    ) from error

__all__ = ["export_tensorboard"]

SUFFIX = "landscape-lab"
BUCKETS = 60  # of a histogram, on each side of zero
DECADES = 4  # below the largest magnitude they are logarithmic, and then comes zero


def export_tensorboard(run: Run, folder: str | os.PathLike[str], *, pictures: bool = True) -> Path:
    """Write a run for ``tensorboard --logdir FOLDER``.

    Scalars: every recorded metric (``test/class_accuracy/3 cat``), and λ_max, λ_min and the trace of every stored
    spectrum (``hessian/tail/lambda_max``, with its error beside it). Histograms: the eigenvalue densities, as numbers
    of eigenvalues. Images: what ``landscape-lab report --pictures`` draws. The step is the epoch.

    Args:
        run: the run.
        folder: TensorBoard's log folder of this run; what an earlier export wrote there is replaced.
        pictures: draw them; takes seconds.

    Returns:
        The event file.

    Raises:
        InputError: there are no recorded epochs to draw.
        OSError: the file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = set(folder.glob(f"events.out.tfevents.*.{SUFFIX}"))
    # TensorBoard may be watching: it shall see a whole file, and not the same name with other content.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as place:
        with SummaryWriter(place) as writer:
            _scalars(writer, run)
            _spectra(writer, run)
            if pictures:
                _pictures(writer, run)
        (written,) = Path(place).glob("events.out.tfevents.*")
        final = folder / f"events.out.tfevents.{time.time_ns() // 1000}.{SUFFIX}"
        os.replace(written, final)
    for old in earlier:
        old.unlink()
    return final


def _scalars(writer: Any, run: Run) -> None:
    names = [str(name) for name in run.info["class_names"]]
    for epoch, metric, position, value in metric_rows(run):
        if value is not None:
            each = "" if position is None else f"/{_title(position, names) if '/class_' in metric else position}"
            writer.add_scalar(f"{metric}{each}", value, epoch)


def _title(number: int, names: list[str]) -> str:
    # A slash would open a group of charts.
    return class_title(number, names).replace("/", "∕") if number < len(names) else str(number)


def _spectra(writer: Any, run: Run) -> None:
    for stored in Results(run.path.name, run).of(Spectrum, "hessian"):
        spectrum, step = stored.result, stored.epoch or 0
        split = stored.settings.get("split", "train")
        tag = f"{spectrum.operator}/{subset_of(stored)}" + ("" if split == "train" else f" ({split})")
        for name, value in (
            ("lambda_max", spectrum.lambda_max),
            ("lambda_min", spectrum.lambda_min),
            ("trace", spectrum.trace.value),
            ("trace_stderr", spectrum.trace.stderr),
        ):
            writer.add_scalar(f"{tag}/{name}", value, step)
        if spectrum.density is not None:
            writer.add_histogram_raw(f"{tag}/eigenvalues", **_histogram(spectrum.density), global_step=step)


def _histogram(density: SpectralDensity) -> dict[str, Any]:
    """Numbers of eigenvalues in buckets that are logarithmic on both sides of zero."""
    nodes, counts = density.nodes.flatten(), density.weights.flatten() * density.size / len(density.nodes)
    nodes, counts = nodes[counts > 0], counts[counts > 0]
    largest = float(nodes.abs().max()) or 1.0
    side = torch.logspace(-DECADES, 0, BUCKETS, dtype=torch.float64) * largest
    limits = torch.cat([-side.flip(0), side])  # the upper ends
    held = torch.zeros(len(limits), dtype=torch.float64)
    held.index_add_(0, torch.searchsorted(limits, nodes).clamp(max=len(limits) - 1), counts)
    return {
        "min": float(nodes.min()),
        "max": float(nodes.max()),
        "num": float(counts.sum()),
        "sum": float((nodes * counts).sum()),
        "sum_squares": float((nodes.square() * counts).sum()),
        "bucket_limits": limits.tolist(),
        "bucket_counts": held.tolist(),
    }


def _pictures(writer: Any, run: Run) -> None:
    last = max((line["epoch"] for line in run.metrics()), default=0)
    with tempfile.TemporaryDirectory() as place:
        for path in draw_pictures({run.path.name: run}, Path(place), formats=("png",)):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            tag = path.relative_to(place).with_suffix("").as_posix().removeprefix(f"{run.path.name}/")
            writer.add_image(f"pictures/{tag}", pixels, last, dataformats="HWC")
