"""What is measured of a run, and what a diagnosis says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from landscape_lab.analysis import GradientSimilarity
from landscape_lab.analysis.paths import Distances
from landscape_lab.studies.equal_sizes import EqualSizes
from landscape_lab.studies.groups import GroupingExamination
from landscape_lab.tabular import Tabular

__all__ = ["Curves", "Diagnosis", "Evidence", "Finding", "Verdict", "unmeasured"]

Verdict = Literal["yes", "no", "cannot tell"]


@dataclass(frozen=True, eq=False)
class Curves:
    """A number of each class over the epochs.

    Attributes:
        epochs: ``T`` epochs, ascending.
        values: ``(T, C)``, float64; ``nan`` where a class has none.
    """

    epochs: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a diagnosis is made from; what is ``None`` was not measured, and ``missing`` says why.

    Attributes:
        run: its name.
        epoch: the checkpoint that was looked at.
        seed: of the run, where it is known.
        class_names: of the classes.
        class_counts: training samples of each class.
        head: the classes with the most samples.
        tail: those with the fewest.
        accuracy: test accuracy of each class.
        quality: feature quality Q of each class, of training features.
        sharpness: of ``head`` and ``tail`` at equal numbers of samples.
        gradients: cosine of each class's gradient with its batch's.
        batch_size: of these batches.
        distances: of the checkpoints to the solution of the tail alone.
        same_start: whether both were initialised alike.
        grouping: what the groups have to do with the data.
        missing: subject → why there is no evidence.
        test_counts: test images of each class; empty if not known.
    """

    run: str
    epoch: int
    seed: int | None
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    head: tuple[int, ...]
    tail: tuple[int, ...]
    accuracy: Curves | None
    quality: Curves | None
    sharpness: EqualSizes | None
    gradients: GradientSimilarity | None
    batch_size: int
    distances: Distances | None
    same_start: bool
    grouping: GroupingExamination | None
    missing: dict[str, str]
    test_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding(Tabular):
    """One question and what the data answer.

    Attributes:
        subject: ``degradation``, ``onset``, ``sharpness``, ``gradients``, ``distance``, ``grouping`` or ``seeds``.
        verdict: ``"yes"`` and ``"no"`` answer the question; ``"cannot tell"``: the data do not.
        sentence: the answer in plain words, with numbers and their uncertainty.
        numbers: the same numbers by name.
        caution: what the answer does not mean; may be empty.
        question: what was asked.
        p_value: of the test against "no", before adjustment; ``nan`` where there is no test.
    """

    subject: str
    verdict: Verdict
    sentence: str
    numbers: dict[str, float]
    caution: str = ""
    question: str = ""
    p_value: float = math.nan


@dataclass(frozen=True)
class Diagnosis(Tabular):
    """What is to be said about a run at an epoch.

    Attributes:
        run: its name.
        epoch: of the checkpoint.
        findings: one for each question.
    """

    run: str
    epoch: int
    findings: tuple[Finding, ...]

    def finding(self, subject: str) -> Finding:
        """The finding on a subject."""
        return next(one for one in self.findings if one.subject == subject)


def unmeasured(subject: str, question: str, evidence: Evidence) -> Finding:
    """What to say of a question without evidence."""
    reason = evidence.missing.get(subject, "it was not measured")
    return Finding(subject, "cannot tell", f"Not measured: {reason}.", {}, "", question)
