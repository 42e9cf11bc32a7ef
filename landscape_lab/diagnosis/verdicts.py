"""From evidence to verdicts: pure rules, with the chance of a false one bounded for the page as a whole."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import hypergeom

from landscape_lab.analysis.estimates import t_quantile
from landscape_lab.analysis.multiplicity import holm
from landscape_lab.analysis.partitions import against_random
from landscape_lab.diagnosis.decline import degradation, onset
from landscape_lab.diagnosis.findings import Diagnosis, Evidence, Finding, Verdict, unmeasured
from landscape_lab.numbers import number, with_error
from landscape_lab.studies.equal_sizes import log_ratio

__all__ = ["LEVEL", "judge"]

LEVEL = 0.05
INDEFINITE = 0.1  # of λ_max: a negative eigenvalue beyond is no rounding or flat direction
UNRELATED = 0.1  # a smaller cosine between two ways counts as none


def judge(evidence: Evidence) -> Diagnosis:
    """Answer the questions that the evidence is about.

    Each test keeps its false alarms at 5 %; those on accuracy, quality, sharpness and gradients are adjusted together
    by Holm's method, so that a page on a run in which nothing happens has one of these verdicts "yes" in at most 5 % of
    cases. The examination of groups is adjusted within itself.

    Args:
        evidence: what was measured; a question without evidence is answered with "cannot tell" and the reason.
    """
    tested = [degradation(evidence), onset(evidence), _sharpness(evidence), _gradients(evidence)]
    adjusted = holm({one.subject: one.p_value for one in tested})
    findings = [_tempered(one, adjusted[one.subject], len(tested)) for one in tested]
    findings += [_distance(evidence)]
    if evidence.grouping is not None:
        findings.append(_grouping(evidence))
    findings.append(_seeds(evidence))
    return Diagnosis(evidence.run, evidence.epoch, tuple(findings))


def _tempered(found: Finding, adjusted: float, questions: int) -> Finding:
    """Take a "yes" back that would not be one among all the questions."""
    if found.verdict != "yes" or adjusted <= LEVEL:
        return found
    words = (
        f"Alone this would be a yes (p = {number(found.p_value, 2)}), but of {questions} questions asked at once one "
        f"comes out so by chance too often (adjusted p = {number(adjusted, 2)})."
    )
    return replace(found, verdict="cannot tell", caution=f"{words} {found.caution}".strip())


def _sharpness(evidence: Evidence) -> Finding:
    question = "Is the loss of the tail sharper than that of the head?"
    found = evidence.sharpness
    if found is None:
        return unmeasured("sharpness", question, evidence)
    ratio, freedom = log_ratio(found, evidence.tail, evidence.head)
    if math.isnan(ratio.value):
        reason = "no class of the head, or none of the tail, has four images"
        return unmeasured("sharpness", question, replace(evidence, missing={"sharpness": reason}))
    value, low, high = (math.exp(min(700.0, x)) for x in (ratio.value, ratio.low, ratio.high))
    of_samples = _beyond(ratio.value, ratio.stderr, freedom)
    logs = found.draws.clamp(min=1e-30).log().mean(1).numpy()
    of_classes = _of_classes(evidence, dict(zip(found.classes, logs.tolist(), strict=True)), "tail")
    p_value = max(of_samples, of_classes)
    verdict: Verdict = "yes" if p_value <= LEVEL else "no" if high <= 1 else "cannot tell"
    h, t = found.subsets.index("head"), found.subsets.index("tail")
    losses = [with_error(float(found.losses[k]), float(found.loss_stderr[k])) for k in (t, h)]
    sentence = (
        f"At equal numbers of images ({found.size} of a class, {found.draws.shape[1]} draws) the largest Hessian "
        f"eigenvalue of a tail class is {number(value, 2)} times that of a head class (95 %: {number(low, 2)} to "
        f"{number(high, 2)}); {_rank(of_classes)} of random choices of classes differ as much that way. Over all "
        f"images it is {number(float(found.highest[t]))} for the tail ({found.samples[t]:,} images) and "
        f"{number(float(found.highest[h]))} for the head ({found.samples[h]:,} images)."
    )
    cautions = []
    if _differ(found.losses[[t, h]], found.loss_stderr[[t, h]]):
        cautions.append(
            f"The losses differ: {losses[0]} (tail) and {losses[1]} (head). The curvature of cross-entropy goes to "
            "zero with the loss, so some or all of this may be a difference in fit, not in flatness."
        )
    for name, k in (("tail", t), ("head", h)):
        if found.lowest[k] < -INDEFINITE * found.highest[k]:
            cautions.append(
                f"The {name}'s Hessian is indefinite (λ_min {number(float(found.lowest[k]))}): the solution is no "
                f"minimum of the {name}'s loss, and there λ_max alone does not say how sharp it is."
            )
    sides = (("tail", t), ("head", h))
    numbers = {
        "ratio": value, "ratio low": low, "ratio high": high, "images": float(found.size),
        "p over samples": of_samples, "p over classes": of_classes,
        **{f"{name} λ_max": float(found.highest[k]) for name, k in sides},
        **{f"{name} λ_min": float(found.lowest[k]) for name, k in sides},
        **{f"{name} loss": float(found.losses[k]) for name, k in sides},
        **{f"{name} loss stderr": float(found.loss_stderr[k]) for name, k in sides},
    }  # fmt: skip
    return Finding("sharpness", verdict, sentence, numbers, " ".join(cautions), question, p_value)


def _beyond(value: float, error: float, freedom: float) -> float:
    """How likely Student's variable is as large as ``value / error``, or larger."""
    return float(stdtr(freedom, -value / error)) if error > 0 else math.nan


def _of_classes(evidence: Evidence, values: dict[int, float], larger: str, *, both_sides: bool = False) -> float:
    """How often head and tail differ as much where they are chosen at random among the classes.

    Classes differ from each other, rare or not, and so do any two sets of them: no number of samples tells whether a
    difference belongs to the tail as such.
    """
    classes = [c for c in values if math.isfinite(values[c])]
    sides = {"head": 0, "tail": 1}
    where = {**dict.fromkeys(evidence.head, 0), **dict.fromkeys(evidence.tail, 1)}
    labels = np.array([where.get(c, 2) for c in classes])
    numbers = np.array([values[c] for c in classes])
    sign = 1.0 if sides[larger] else -1.0

    def difference(partitions: NDArray[np.int64]) -> NDArray[np.float64]:
        tail, head = ((partitions == side) @ numbers / (labels == side).sum() for side in (1, 0))
        found = np.asarray(sign * (tail - head))
        return np.abs(found) if both_sides else found

    return against_random(difference, labels).p_value


def _rank(p_value: float) -> str:
    return f"{number(100 * p_value, 2)} %"


def _differ(values: torch.Tensor, errors: torch.Tensor) -> bool:
    """Whether two losses differ by more than their errors, and by a quarter at least."""
    gap, error = float((values[0] - values[1]).abs()), float(errors.norm())
    return gap > 2 * error and gap > 0.25 * float(values.max())


def _gradients(evidence: Evidence) -> Finding:
    question = "Do the head's gradients dominate the batch's?"
    found = evidence.gradients
    if found is None:
        return unmeasured("gradients", question, evidence)
    known = {c: k for k, c in enumerate(found.classes) if int(found.present[k]) > 1}
    sides = []
    for name, classes in (("head", evidence.head), ("tail", evidence.tail)):
        places = [known[c] for c in classes if c in known]
        if not places:
            reason = f"no class of the {name} is in two batches of {evidence.batch_size}"
            return unmeasured("gradients", question, replace(evidence, missing={"gradients": reason}))
        # Batches of one epoch hold each sample once, so that they are as good as independent.
        error = float(found.stderr[places].square().sum().sqrt()) / len(places)
        by_share = sum(_share_cosine(evidence, found.classes[k]) for k in places) / len(places)
        sides.append((float(found.mean[places].mean()), error, by_share, int(found.present[places].min())))
    (head, head_error, head_share, head_in), (tail, tail_error, tail_share, tail_in) = sides
    gap, error, freedom = head - tail, math.hypot(head_error, tail_error), min(head_in, tail_in) - 1
    reach = t_quantile(freedom + 1) * error
    # Unrelated gradients also differ, by their numbers; and what is left differs from class to class.
    left = {c: float(found.mean[k]) - _share_cosine(evidence, c) for c, k in known.items()}
    of_batches = _beyond(gap, error, freedom)
    of_classes = _of_classes(evidence, left, "head", both_sides=True)
    p_value = max(of_batches, of_classes)
    verdict: Verdict = "yes" if p_value <= LEVEL else "no" if gap + reach <= 0 else "cannot tell"
    sentence = (
        f"The cosine of a class's gradient with its batch's is {with_error(head, head_error)} for the head and "
        f"{with_error(tail, tail_error)} for the tail (difference {number(gap, 2)}, 95 %: {number(gap - reach, 2)} to "
        f"{number(gap + reach, 2)}). Unrelated gradients of equal length would give {number(head_share, 2)} and "
        f"{number(tail_share, 2)}, by the classes' shares of a batch alone; {_rank(of_classes)} of random choices of "
        "classes depart as far from that."
    )
    caution = (
        "A cosine says where the batch's step goes, not that it harms the tail. The standard errors are over batches "
        f"of one epoch; the tail's rarest class is in {tail_in} of {found.batches}."
    )
    numbers = {
        "head": head, "head stderr": head_error, "tail": tail, "tail stderr": tail_error, "difference": gap,
        "difference low": gap - reach, "difference high": gap + reach, "head by share": head_share,
        "tail by share": tail_share, "p over batches": of_batches, "p over classes": of_classes,
    }  # fmt: skip
    return Finding("gradients", verdict, sentence, numbers, caution, question, p_value)


def _share_cosine(evidence: Evidence, label: int) -> float:
    r"""What unrelated gradients of equal length give: :math:`E[\sqrt{k / B} \mid k > 0]` for ``k`` samples of ``B``."""
    whole = sum(evidence.class_counts)
    size = min(evidence.batch_size, whole)
    k = torch.arange(1, size + 1, dtype=torch.float64)
    chance = torch.from_numpy(hypergeom.pmf(k.numpy(), whole, evidence.class_counts[label], size))
    return float((chance * (k / size).sqrt()).sum() / chance.sum())


def _distance(evidence: Evidence) -> Finding:
    question = "Has training led away from the tail's own solution?"
    found = evidence.distances
    if found is None:
        return unmeasured("distance", question, evidence)
    start, end, cosine = float(found.full[0]), float(found.full[-1]), float(found.cosine[-1])
    nearest = int(found.full.argmin())
    numbers = {
        "start": start, "end": end, "nearest": float(found.full[nearest]), "nearest epoch": float(found.steps[nearest]),
        "relative": float(found.relative[-1]), "cosine": cosine,
    }  # fmt: skip
    words = (
        f"From the tail's own solution ({found.reference}) this one is {number(end)} away, "
        f"{number(float(found.relative[-1]), 2)} times that solution's norm; the start was {number(start)} away, the "
        f"nearest checkpoint {number(numbers['nearest'])} (epoch {found.steps[nearest]}). "
    )
    if not evidence.same_start:
        words += "The two runs did not start from the same weights."
        caution = "Distances between networks with different initialisations say nothing about what they have learned."
        return Finding("distance", "cannot tell", words, numbers, caution, question)
    words += f"The way from the start has cosine {number(cosine, 2)} with the way to the tail's solution."
    verdict: Verdict = "yes" if cosine <= -UNRELATED else "no" if cosine >= UNRELATED else "cannot tell"
    caution = (
        "Two single runs: how much another seed would change this is not known. Cosines below "
        f"{UNRELATED:g} count as none, by convention and not by a test; weight decay alone makes them positive."
    )
    return Finding("distance", verdict, words, numbers, caution, question)


def _grouping(evidence: Evidence) -> Finding:
    question = "Do the classes of a group belong together?"
    found = evidence.grouping
    assert found is not None
    tests = found.tests()
    # That groups follow the epoch of the stored encoder is how they are made, not what their classes share.
    asked = {name: found.adjusted[name] for name in tests if "best epoch" not in name and "class size" not in name}
    data = {name: p for name, p in asked.items() if name.startswith("within") or "superclasses" in name}
    yes = [name for name, p in data.items() if p <= LEVEL]
    listed = ", ".join(f"{name} (p = {number(p, 1)})" for name, p in data.items() if not math.isnan(p))
    words = (
        f"Against random groups of the same sizes, more than chance: {', '.join(yes) or 'nothing'}. Asked: {listed}."
    )
    if "best epoch" in found.explained:
        one = found.explained["best epoch"]
        words += (
            f" The groups explain {number(100 * one.share, 2)} % of when a class was at its best (random groups: "
            f"{number(100 * one.test.expected, 2)} %, adjusted p = {number(found.adjusted['explains best epoch'], 1)})."
        )
    numbers = {f"{name} p": p for name, p in found.adjusted.items()}
    numbers |= {name: test.value for name, test in tests.items()}
    caution = f"{len(found.groups)} groups of {len(evidence.class_names)} classes: few classes leave little to test."
    verdict: Verdict = "yes" if yes else "cannot tell"
    smallest = min(data.values(), default=math.nan)
    return Finding("grouping", verdict, words, numbers, caution, question, smallest)


def _seeds(evidence: Evidence) -> Finding:
    seed = "" if evidence.seed is None else f", of seed {evidence.seed}"
    return Finding(
        "seeds",
        "cannot tell",
        f"This is one run{seed}: the intervals above are those of this network, over samples, "
        "batches and epochs. What another seed would give, and so what the method does, one run cannot tell.",
        {"runs": 1.0},
        "",
        "Would another seed show the same?",
    )
