"""A pytest plugin: the fixture ``sharpness``, and ``--landscape-update``, which writes its baselines.

Registered by the entry point ``pytest11``. Nothing but pytest is imported here until a test uses the fixture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from landscape_lab.guard.compare import Comparison

__all__ = ["SharpnessGuard", "pytest_addoption", "sharpness"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--landscape-update`` and ``--landscape-spend``."""
    group = parser.getgroup("landscape-lab", "sharpness of models against baselines")
    group.addoption("--landscape-update", action="store_true", help="write the baselines of sharpness.check anew")
    group.addoption(
        "--landscape-spend", type=int, default=1, metavar="N", help="spend up to N times the probes where it is unsure"
    )


@pytest.fixture
def sharpness(request: pytest.FixtureRequest) -> SharpnessGuard:
    """Compare a model's sharpness with a baseline in ``landscape/`` beside the test: see :meth:`SharpnessGuard.check`.

    Example::

        def test_no_sharper(sharpness):
            sharpness.check(model, (inputs, targets), torch.nn.CrossEntropyLoss())
    """
    return SharpnessGuard(
        request.path.parent / "landscape",
        re.sub(r"[^A-Za-z0-9._-]+", "-", f"{request.path.stem}-{request.node.name}").strip("-"),
        update=bool(request.config.getoption("--landscape-update")),
        spend=int(request.config.getoption("--landscape-spend")),
    )


class SharpnessGuard:
    """What the fixture ``sharpness`` gives.

    Args:
        folder: of the baselines.
        name: of the test's own.
        update: whether baselines are written.
        spend: so many times the baseline's probes at most, where the answer is inconclusive.
    """

    def __init__(self, folder: Path, name: str, *, update: bool = False, spend: int = 1) -> None:
        self.folder, self.name, self.update, self.spend = folder, name, update, spend

    def check(
        self,
        model: nn.Module,
        batches: Any,
        loss: Any,
        name: str | None = None,
        classes: Mapping[str, Sequence[int]] | None = None,
        tolerance: str | Sequence[str] = (),
        *,
        encoder: nn.Module | None = None,
        whole: bool = False,
        **settings: Any,
    ) -> Comparison | None:
        """Fail the test if the model is sharper than its baseline, by more than is tolerated and chance explains.

        An answer that is inconclusive warns. A baseline of other samples, classes, settings or another network fails.

        Args:
            model: any module; left as it was.
            batches: a pair of tensors, a list of batches, or a loader that gives the same samples in the same order.
            loss: ``loss(output, target)``: a value for each sample, or their mean.
            name: of the baseline; ``None``: the test's.
            classes: name → class numbers; ``None``: all samples together.
            tolerance: as the command line takes it: ``"30%"``, ``["30%", "quality=0.5"]``.
            encoder: gives features ``(B, D)``; without one there is no feature quality.
            whole: the samples are all that there is; otherwise the error covers their draw.
            **settings: of :class:`~landscape_lab.guard.settings.GuardSettings`, such as ``probes=48``.

        Returns:
            The comparison; ``None`` where the baseline was written.
        """
        __tracebackhide__ = True
        from landscape_lab.errors import InputError

        path = self.folder / f"{name or self.name}.json"
        try:
            comparison = self._compared(path, model, batches, loss, classes, tolerance, encoder, whole, settings)
        except InputError as error:
            pytest.fail(str(error).replace("--update", "pytest --landscape-update"), pytrace=False)
        if comparison is None:
            return None
        from landscape_lab.guard.formats import headline, sentence

        told = [sentence(one) for one in comparison.verdicts if one.outcome == comparison.outcome]
        report = "\n  ".join([headline(comparison), *told, *comparison.notes])
        if comparison.outcome == "fail":
            pytest.fail(report, pytrace=False)
        if comparison.outcome == "inconclusive":
            import warnings

            warnings.warn(pytest.PytestWarning(f"{path.name}: {report}"), stacklevel=2)
        return comparison

    def _compared(
        self,
        path: Path,
        model: nn.Module,
        batches: Any,
        loss: Any,
        classes: Mapping[str, Sequence[int]] | None,
        tolerance: str | Sequence[str],
        encoder: nn.Module | None,
        whole: bool,
        chosen: Mapping[str, Any],
    ) -> Comparison | None:
        import torch

        from landscape_lab.errors import InputError, nearest
        from landscape_lab.guard import GuardSettings, Measurement, draw, measure, mixed_batches, tolerances_of
        from landscape_lab.guard.baseline import write_baseline
        from landscape_lab.guard.guarding import against_baseline
        from landscape_lab.guard.origin import origin_of
        from landscape_lab.target import Target

        target = Target(model, loss, batches)
        inputs, targets = target.tensors()
        # Without classes the targets may be anything, and all samples are of one.
        labels = torch.zeros(len(inputs), dtype=torch.long) if classes is None else target.class_labels()
        device = next(model.parameters()).device
        inputs, targets = inputs.to(device), targets.to(device)
        values, counts = labels.unique(return_counts=True)
        population = {int(c): float(count) for c, count in zip(values, counts, strict=True)}
        groups = {"all": (0,)} if classes is None else {key: tuple(value) for key, value in classes.items()}
        unknown = [key for key in chosen if key not in GuardSettings.__struct_fields__]
        if unknown:
            raise InputError(
                f"sharpness.check has no setting {unknown[0]!r}{nearest(unknown[0], GuardSettings.__struct_fields__)}"
            )

        def measured(settings: GuardSettings, names: Any, wanted: Any, spend: int) -> Measurement:
            drawn = draw(
                inputs,
                targets,
                labels,
                settings.samples if "samples" in chosen else None,
                None if whole else population,
            )
            mixed = mixed_batches(inputs, targets, settings, 128, spend) if classes is not None else ()
            return measure(
                model, loss, drawn, groups if names is None else names, settings, encoder=encoder, batches=mixed,
                wanted=wanted, spend=spend, origin={"test": self.name, **origin_of(device)},
            )  # fmt: skip

        limits = tolerances_of([tolerance] if isinstance(tolerance, str) else tolerance)
        if self.update:
            write_baseline(path, measured(GuardSettings(**chosen), None, None, 1))
            return None
        comparison, before, _ = against_baseline(path, measured, limits, chosen=chosen, spend=self.spend)
        if before.subsets != groups:
            raise InputError(f"{path} was measured with other classes: write a new baseline with --update")
        return comparison
