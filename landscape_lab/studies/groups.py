"""A run's groups of classes, examined: are they stable, what do they agree with, and are their classes alike?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from landscape_lab.analysis.class_relations import class_gradient_cosines, class_neighbours, confusion_rates
from landscape_lab.analysis.features import encode
from landscape_lab.analysis.multiplicity import holm
from landscape_lab.analysis.partitions import (
    AgainstRandom,
    Agreement,
    Contrast,
    Explained,
    agreement,
    explained,
    labels_of,
    pair_contrast,
)
from landscape_lab.curvature import stratified
from landscape_lab.data.superclasses import superclasses
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace
from landscape_lab.run import Run
from landscape_lab.studies.samples import Samples
from landscape_lab.studies.study import Progress, Study
from landscape_lab.tabular import Columns, Tabular, columns_of
from landscape_lab.training.grouping import frequency_groups

__all__ = ["PER_CLASS", "ClassRelations", "GroupingExamination", "class_relations", "examine_groups", "relations_cost"]

PER_CLASS = 200
"""Samples of each class that are looked at by default."""


@dataclass(frozen=True, eq=False)
class ClassRelations(Tabular):
    """How the classes are related at one checkpoint; rows and columns of classes without samples are ``nan``.

    Attributes:
        confusion: ``(C, C)``, float64: of the row's test samples, the share taken for the column's class.
        neighbours: ``(C, C)``: whose test samples are the nearest ones of other classes, among the encoder's features.
        pixels: ``(C, C)``: likewise among the images themselves, which the run does not change.
        gradients: ``(C, C)``: cosine of the encoder gradients of the classes' mean training losses.
        epoch: of the checkpoint.
        per_class: at most so many samples of each class.
    """

    confusion: Tensor
    neighbours: Tensor
    pixels: Tensor
    gradients: Tensor
    epoch: int
    per_class: int


@columns_of.register
def _(result: ClassRelations) -> Columns:
    classes = range(len(result.confusion))
    return {
        "row": [row for row in classes for _ in classes],
        "column": [*classes] * len(classes),
        **{
            name: getattr(result, name).flatten().tolist()
            for name in ("confusion", "neighbours", "pixels", "gradients")
        },
    }


@dataclass(frozen=True, eq=False)
class GroupingExamination(Tabular):
    """What the groups that a run ended with have to do with its data; every number beside chance.

    Attributes:
        run: its name.
        source: ``ncut``, ``random`` or ``frequency``.
        epoch: of the checkpoint at which classes were compared.
        grouped_at: ``E`` epochs at which groups were made.
        labels: ``(E, C)``, int64, the group of each class; -1 for a class that was not trained on.
        successive: agreement of each grouping with the next, length ``E - 1``.
        seeds: run → agreement of its last groups with this run's.
        references: agreement of the last groups with bins of class size (``frequency``: as many bins as groups, of
            equal size; ``shots``: many, med, few) and with ``superclasses``.
        explained: what share of the variance of each class's training samples (``class size``, by rank) and of the
            epoch of its stored encoder (``best epoch``, by rank) lies between the groups.
        contrasts: pairs of classes in one group against pairs across: ``confusion``, ``neighbours``, ``pixels`` and
            ``gradients``, see :class:`ClassRelations`.
        adjusted: question → Holm's p-value over all questions of this examination, without ``successive``, of which
            each starts from the one before.
        missing: what could not be asked, and why.
    """

    run: str
    source: str
    epoch: int
    grouped_at: tuple[int, ...]
    labels: Tensor
    successive: tuple[Agreement, ...]
    seeds: dict[str, Agreement]
    references: dict[str, Agreement]
    explained: dict[str, Explained]
    contrasts: dict[str, Contrast]
    adjusted: dict[str, float]
    missing: dict[str, str]

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each of the last groups."""
        last = self.labels[-1].tolist()
        return tuple(tuple(c for c, label in enumerate(last) if label == g) for g in sorted({*last} - {-1}))

    def tests(self) -> dict[str, AgainstRandom]:
        """The test of each question, by the names of :attr:`adjusted`."""
        named: dict[str, Mapping[str, Agreement | Explained | Contrast]] = {
            "agrees with": self.references,
            "agrees with run": self.seeds,
            "explains": self.explained,
            "within groups:": self.contrasts,
        }
        return {f"{kind} {name}": one.test for kind, part in named.items() for name, one in part.items()}


@columns_of.register
def _(result: GroupingExamination) -> Columns:
    tests = result.tests()
    return {
        "question": [*tests],
        **{
            name: [getattr(test, name) for test in tests.values()]
            for name in ("value", "expected", "low", "high", "p_value", "partitions", "exact")
        },
        "p_adjusted": [result.adjusted.get(question) for question in tests],
    }


def examine_groups(
    study: Study,
    others: Sequence[Run] = (),
    epoch: int | None = None,
    *,
    per_class: int = PER_CLASS,
    seed: int = 0,
    progress: Progress | None = None,
) -> GroupingExamination:
    """Compare a run's groups with each other, with other runs', with known partitions and with its classes' likeness.

    Args:
        study: the run; its groups are the last ones made up to ``epoch``.
        others: runs with groups of the same classes, such as other seeds.
        epoch: of the checkpoint at which classes are compared; ``None``: the last.
        per_class: samples of each class, see :func:`class_relations`.
        seed: of the random partitions, where not all can be looked at.
        progress: called with the number of samples done; :func:`relations_cost` says how many there are.

    Raises:
        InputError: the run has no groups, or another run has none or other classes.
    """
    epoch = study.epoch(epoch)
    run, classes = study.run, study.num_classes
    table = _groupings(run, epoch)
    rivals = {_name(other, run): _groupings(other, None) for other in others}
    for other in others:
        if other.info["class_names"] != run.info["class_names"]:
            raise InputError(f"{other.path} has other classes than {run.path}: groups can only be compared of the same")
    relations = class_relations(study, epoch, per_class=per_class, progress=progress)

    def compute() -> GroupingExamination:
        labels = {at: labels_of(groups, classes) for at, groups in table.items()}
        last = list(labels.values())[-1]
        known = last >= 0
        missing: dict[str, str] = {}

        def against(other: Sequence[int]) -> Agreement:
            return agreement(last[known], torch.tensor(other).numpy()[known], seed=seed)

        counts = run.info["class_counts"]
        references = {
            "frequency": against(labels_of(frequency_groups(counts, len({*last[known].tolist()})), classes).tolist())
        }
        shots = labels_of([run.info["subsets"][name] for name in ("many", "med", "few")], classes)
        if len({*shots[known].tolist()}) > 1:
            references["shots"] = against(shots.tolist())
        else:
            missing["shots"] = "all classes have many samples, or all few"
        above = superclasses(study.class_names)
        if above is None:
            missing["superclasses"] = "the classes' names are neither CIFAR-10's nor CIFAR-100's"
        else:
            references["superclasses"] = against([sorted(set(above)).index(one) for one in above])
        numbers = {"class size": rankdata(torch.tensor(counts).numpy()[known])}
        stored = _best_epochs(run, list(table)[-1])
        if stored is None:
            missing["best epoch"] = "metrics.jsonl does not say which encoders the memory bank held"
        else:
            numbers["best epoch"] = rankdata(torch.tensor(stored).numpy()[known])
        contrasts = {}
        for name in ("confusion", "neighbours", "pixels", "gradients"):
            values = getattr(relations, name).numpy()[known][:, known]
            found = pair_contrast(values, last[known], seed=seed)
            if math.isnan(found.test.value):
                missing[name] = "no pair of classes inside a group, or none across"
            else:
                contrasts[name] = found
        order = list(labels.values())
        result = GroupingExamination(
            run=run.path.name,
            source=run.recipe.groups.source,
            epoch=epoch,
            grouped_at=tuple(table),
            labels=torch.tensor([one.tolist() for one in order]),
            successive=tuple(agreement(b, a, seed=seed) for a, b in itertools.pairwise(order)),
            seeds={name: against(labels_of(list(t.values())[-1], classes).tolist()) for name, t in rivals.items()},
            references=references,
            explained={name: explained(values, last[known], seed=seed) for name, values in numbers.items()},
            contrasts=contrasts,
            adjusted={},
            missing=missing,
        )
        result.adjusted.update(holm({name: test.p_value for name, test in result.tests().items()}))
        return result

    settings = {
        "epoch": epoch,
        "groups": list(table.values()),
        "others": {name: list(found.values())[-1] for name, found in rivals.items()},
        "per_class": per_class,
        "seed": seed,
    }
    return study.stored(f"groups/epoch-{epoch:04d}", GroupingExamination, settings, compute)


def class_relations(
    study: Study, epoch: int | None = None, *, per_class: int = PER_CLASS, progress: Progress | None = None
) -> ClassRelations:
    """Confusion, neighbours and gradients of the classes at a checkpoint.

    Args:
        study: the run.
        epoch: of the checkpoint; ``None``: the last.
        per_class: at most so many samples of each class, test samples for confusion and neighbours (they are as many of
            each class in the usual sets), training samples for gradients.
        progress: called with the number of samples done.
    """
    epoch = study.epoch(epoch)
    settings = {"epoch": epoch, "per_class": per_class}
    tell = progress or (lambda done: None)

    def compute() -> ClassRelations:
        classes = study.num_classes
        size = study.evaluation_batch_size
        test, train = (_drawn(study.split(which), per_class) for which in ("test", "train"))
        classifier = study.classifier
        if classifier is None:
            raise InputError("classes are grouped by training with GKP: a run without a recipe has no groups")
        features, targets = encode(study.encoder, test.batches(size))
        with torch.no_grad():
            predictions = classifier(features).argmax(1)
        tell(len(test))
        pixels = test.tensors()[0].flatten(1)
        gradients = class_gradient_cosines(
            study.model,
            study.loss,
            train.batches(size),
            classes,
            parameters=ParameterSpace(study.model, lambda name: name.startswith("encoder.")),
            progress=tell,
        )
        return ClassRelations(
            confusion=confusion_rates(predictions, targets, classes),
            neighbours=class_neighbours(features, targets, classes),
            pixels=class_neighbours(pixels, targets, classes),
            gradients=gradients,
            epoch=epoch,
            per_class=per_class,
        )

    return study.stored(f"groups/relations-{epoch:04d}", ClassRelations, settings, compute)


def relations_cost(study: Study, per_class: int = PER_CLASS) -> int:
    """How many samples :func:`class_relations` goes through."""
    parts = [study.split(which).class_counts(study.num_classes) for which in ("test", "train")]
    return sum(min(count, per_class) for part in parts for count in part)


def _drawn(split: Samples, per_class: int) -> Samples:
    return split.take(stratified(split.labels, per_class))


def _groupings(run: Run, epoch: int | None) -> dict[int, list[list[int]]]:
    """The groups by the epoch they were made at, up to one epoch."""
    found = {int(at): groups for at, groups in run.info["groups"].items() if epoch is None or int(at) <= epoch}
    if not found:
        when = "" if epoch is None or not run.info["groups"] else f" up to epoch {epoch}"
        raise InputError(f"{run.path} has no groups{when}: train with a method that groups classes, such as gkp-gsa")
    return dict(sorted(found.items()))


def _best_epochs(run: Run, grouped_at: int) -> list[int] | None:
    """The epoch of each class's stored encoder when the groups were made."""
    for line in run.metrics():
        if line["epoch"] == grouped_at and "bank" in line:
            return list(line["bank"]["epochs"])
    return None


def _name(other: Run, run: Run) -> str:
    # Runs of different folders may have one name.
    return other.path.name if other.path.name != run.path.name else str(other.path)
