"""``hessian``: curvature of any subset of classes, of a run or of anybody's model, over one epoch or all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from landscape_lab import console
from landscape_lab.cli.group import cli
from landscape_lab.cli.options import (
    Command,
    data_root_option,
    device_option,
    epoch_option,
    json_option,
    numbers_of,
    open_study,
    samples_option,
    split_option,
)
from landscape_lab.errors import InputError
from landscape_lab.numbers import number, with_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from landscape_lab.analysis import Comparison, Loss, Reference, Spectrum
    from landscape_lab.curvature import CurvatureSettings
    from landscape_lab.studies import Study

__all__ = ["hessian"]

Progress = Callable[[int], None]

EXAMPLE = """
landscape-lab hessian runs/digits-lt-erm-seed0 --classes each,head,tail,all
landscape-lab hessian runs/digits-lt-erm-seed0 --epochs all --error 0.1
landscape-lab hessian --target my_project.py:make --classes each,all --check
"""


@cli.command(cls=Command, example=EXAMPLE)
@click.argument("run", required=False)
@click.option(
    "--target",
    metavar="MODULE:FUNCTION",
    help="A function that returns (model, loss, batches), in a module or a file: instead of a run, or for one that was "
    "recorded or imported.",
)
@epoch_option
@click.option("--epochs", metavar="all|N,N,…", help="Several checkpoints, each starting from the one before.")
@click.option(
    "--classes",
    "subsets",
    multiple=True,
    default=("head,tail",),
    show_default=True,
    metavar="SUBSET,…",
    help="each (every class), head, tail, all, many, med, few, groups; numbers such as 0,3,7 are one subset. May be "
    "repeated.",
)
@split_option
@samples_option
@click.option(
    "--per-class",
    type=click.IntRange(1),
    metavar="N",
    help="At most so many samples of each class; unions weigh the classes by their true counts.",
)
@click.option(
    "--operator",
    type=click.Choice(["hessian", "ggn", "fisher", "fisher-true"]),
    default="hessian",
    show_default=True,
    help="Which matrix: Hessian, Gauss-Newton, empirical or true Fisher.",
)
@click.option(
    "--blocks",
    multiple=True,
    metavar="GLOB",
    help="Only the diagonal block of these parameters, such as 'encoder.*' or classifier. May be repeated.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["running", "batch", "reestimated"]),
    default="running",
    show_default=True,
    help="Statistics that BatchNorm uses: its running ones, each batch's, or estimated again on these samples.",
)
@click.option("--probes", "--trace-products", "probes", type=click.IntRange(2), default=30, show_default=True,
              help="Random vectors for the trace.")  # fmt: skip
@click.option("--steps", "--density-products", "steps", type=click.IntRange(0), metavar="N",
              help="Products for the density; 0: none.  [default: 100; over several epochs 0]")  # fmt: skip
@click.option("--error", type=float, metavar="R",
              help="Spend products until traces and both ends have this relative error.")  # fmt: skip
@click.option("--max-products", default=2000, show_default=True, type=click.IntRange(4), help="… but at most so many.")
@click.option("--bootstrap", default=0, show_default=True, type=click.IntRange(0), metavar="N",
              help="Draw the samples again N times, for the error that their draw leaves.")  # fmt: skip
@click.option(
    "--backend",
    type=click.Choice(["landscape-lab", "pyhessian", "scipy"]),
    default="landscape-lab",
    show_default=True,
    help="Who computes: us, PyHessian, or scipy's eigsh (no trace).",
)
@click.option("--check", is_flag=True, help="Compute with the other two as well, and print the differences.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random vectors.")
@click.option("--memory", type=float, metavar="GIB", help="Memory for kept graphs.  [default: half of what is free]")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), metavar="N",
              help="With --epochs: processes that share the epochs, the threads and the memory.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("curvature"), show_default=True,
              help="With --target: folder for the picture and the numbers.")  # fmt: skip
@data_root_option
@device_option
@json_option
def hessian(
    run: str | None,
    target: str | None,
    epoch: int | None,
    epochs: str | None,
    subsets: tuple[str, ...],
    split: str,
    samples: int | None,
    per_class: int | None,
    operator: Any,
    blocks: tuple[str, ...],
    batch_norm: Any,
    probes: int,
    steps: int | None,
    error: float | None,
    max_products: int,
    bootstrap: int,
    backend: str,
    check: bool,
    seed: int,
    memory: float | None,
    jobs: int,
    out: Path,
    data_root: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Curvature of the loss on any subset of classes.

    Largest and smallest eigenvalue with residual and 95 % limit, trace with standard error, density of all
    eigenvalues; each subset over its own samples alone.
    """
    if run is None and target is None:
        raise InputError("give a run, such as runs/digits-lt-erm-seed0, or --target module:function")
    if epoch is not None and epochs is not None:
        raise InputError("--epoch and --epochs exclude each other")
    if error is not None and not 0 < error < 1:
        raise InputError(f"--error is relative, between 0 and 1, got {error:g}")
    if memory is not None and memory < 0:
        raise InputError(f"--memory must not be negative, got {memory:g}")
    from landscape_lab.curvature import CurvatureSettings

    if steps is None:
        steps = 100 if epochs is None else 0
    common = CurvatureSettings(
        operator=operator,
        batch_norm=batch_norm,
        trace_products=probes,
        density_products=steps,
        error=error,
        max_products=max_products,
        resamples=bootstrap,
        seed=seed,
    )
    each = [replace(common, block=block) for block in blocks] or [common]
    limit = None if memory is None else int(memory * 2**30)
    source: _Source
    if run is None and target is not None:
        for option, given in (("--epoch", epoch), ("--epochs", epochs), ("--split", split != "train")):
            if given not in (None, False):
                raise InputError(f"{option} is for runs: --target gives one model and its samples")
        source = _TargetSource(target, subsets, samples, per_class, device, limit, out)
    else:
        study = open_study(str(run), device, data_root, target)
        if epochs is not None:
            chosen = study.run.checkpoints() if epochs == "all" else numbers_of("--epochs", epochs)
            _refuse_unknown(study, chosen)
            options = {"split": split, "samples": samples, "per_class": per_class}
            if jobs > 1:
                _share_out(study, data_root, target, sorted(chosen), subsets, each, options, limit, jobs)
            _over_epochs(study, sorted(chosen), subsets, each, options, limit, as_json)
            return
        if jobs > 1:
            raise InputError("--jobs shares out epochs: give --epochs")
        source = _RunSource(study, epoch, subsets, split, samples, per_class, limit)
    if backend != "landscape-lab":
        _by_another(source, backend, each, as_json)
        return
    found: dict[tuple[str, str | None], Spectrum] = {}
    for settings in each:
        title = "samples × products" if settings.block is None else f"{settings.block}: samples × products"
        with console.progress_bar(title, source.cost(settings)) as advance:
            found |= {(name, settings.block): one for name, one in source.spectra(settings, advance).items()}
    pictures = source.draw(found)
    comparisons = _checked(source, found, each) if check else {}
    if as_json:
        content = {_label(*key): {**source.where, "block": key[1], **_numbers(one)} for key, one in found.items()}
        for key, rows in comparisons.items():
            content[_label(*key)]["check"] = [vars(row) for row in rows]
        console.result(content)
        return
    _print(f"{source.title}: {_noun(common)}", {_label(*key): one for key, one in found.items()})
    if comparisons:
        _print_check(comparisons)
    console.note(f"picture: {pictures}")


# -- a run, or anybody's model ---------------------------------------------------------------------------------------


class _RunSource:
    """A checkpoint of a run."""

    def __init__(
        self,
        study: Study,
        epoch: int | None,
        subsets: Sequence[str],
        split: str,
        samples: int | None,
        per_class: int | None,
        memory_limit: int | None,
    ) -> None:
        self.study, self.epoch = study, study.epoch(epoch)
        self.subsets, self.memory_limit = subsets, memory_limit
        self.options: dict[str, Any] = {"split": split, "samples": samples, "per_class": per_class}
        self.title = f"{study.run.path}, epoch {self.epoch}, {split} loss"
        self.where = {"epoch": self.epoch}

    def cost(self, settings: CurvatureSettings) -> int:
        """For the progress bar."""
        from landscape_lab.studies.curvature import spectra_cost

        return spectra_cost(self.study, self.subsets, settings, **self.options)

    def spectra(self, settings: CurvatureSettings, progress: Progress) -> dict[str, Spectrum]:
        """Computed, or found in the run."""
        from landscape_lab.studies.curvature import spectra

        return spectra(
            self.study,
            self.subsets,
            self.epoch,
            settings,
            memory_limit=self.memory_limit,
            progress=progress,
            **self.options,
        )

    def draw(self, found: Mapping[tuple[str, str | None], Spectrum]) -> Path:
        """Densities, and values of all subsets."""
        folder = self.study.run.path / "figures"
        return _draw(
            found, folder / f"hessian-epoch-{self.epoch:04d}", f"{self.study.run.path.name}, epoch {self.epoch}"
        )

    def parts(self) -> dict[str, tuple[nn.Module, Loss, tuple[Tensor, Tensor]]]:
        """Model, loss and samples of each subset, for other back ends."""
        if self.options["per_class"] is not None:
            raise InputError("other back ends cannot weigh classes by their counts: use --samples, not --per-class")
        chosen = self.study.subset_classes(self.subsets)
        split, samples = self.options["split"], self.options["samples"]
        return {name: (self.study.model, self.study.loss, self.study.samples(name, split, samples)) for name in chosen}


class _TargetSource:
    """What a user's function returns."""

    def __init__(
        self,
        spec: str,
        subsets: Sequence[str],
        samples: int | None,
        per_class: int | None,
        device: str,
        memory_limit: int | None,
        out: Path,
    ) -> None:
        import torch

        from landscape_lab.curvature import class_subsets, stratified
        from landscape_lab.data import head_tail
        from landscape_lab.devices import resolve_device
        from landscape_lab.target import load_target

        target = load_target(spec)
        where = resolve_device(device)
        self.model, self.loss = target.model.to(where), target.loss
        inputs, targets = target.tensors()
        self.counts: dict[int, float] | None = None
        if subsets == ("all",) and targets.is_floating_point():  # no classes are needed
            labels = torch.zeros(len(inputs), dtype=torch.long)
            chosen: dict[str, tuple[int, ...]] = {"all": (0,)}
        else:
            labels = target.class_labels()
            occurring = torch.bincount(labels).tolist()
            count = len(target.class_names or occurring)
            occurring += [0] * (count - len(occurring))
            known = {"all": tuple(range(count)), **{k: tuple(v) for k, v in head_tail(occurring, 0.2).items()}}
            known |= {name: tuple(classes) for name, classes in (target.groups or {}).items()}
            chosen = class_subsets(subsets, known, count)
            if per_class is not None:
                self.counts = dict(enumerate(map(float, occurring)))
                places = stratified(labels, per_class)
                inputs, targets, labels = inputs[places], targets[places], labels[places]
        if samples is not None:
            raise InputError("--samples is for runs: use --per-class, or let the function return fewer samples")
        self.data = inputs.to(where), targets.to(where)
        self.labels, self.subsets = labels.to(where), chosen
        self.memory_limit, self.out = memory_limit, out
        self.title, self.where = spec, {"target": spec}
        self.sizes = {name: int(torch.isin(labels, torch.tensor(classes)).sum()) for name, classes in chosen.items()}

    def cost(self, settings: CurvatureSettings) -> int:
        """For the progress bar."""
        return settings.cost(list(self.sizes.values()), len(self.labels))

    def spectra(self, settings: CurvatureSettings, progress: Progress) -> dict[str, Spectrum]:
        """Computed, and written beside the picture."""
        from landscape_lab.curvature import measure

        return measure(
            self.model,
            self.loss,
            self.data,
            self.subsets,
            settings,
            labels=self.labels,
            counts=self.counts,
            memory_limit=self.memory_limit,
            progress=progress,
        )

    def draw(self, found: Mapping[tuple[str, str | None], Spectrum]) -> Path:
        """Densities, values of all subsets, and the numbers."""
        from landscape_lab.files import write_json
        from landscape_lab.numbers import finite

        write_json(self.out / "hessian.json", finite({_label(*key): _numbers(one) for key, one in found.items()}))
        return _draw(found, self.out / "hessian", self.title)

    def parts(self) -> dict[str, tuple[nn.Module, Loss, tuple[Tensor, Tensor]]]:
        """Model, loss and samples of each subset, for other back ends."""
        import torch

        if self.counts is not None:
            raise InputError("other back ends cannot weigh classes by their counts: leave --per-class out")
        found = {}
        for name, classes in self.subsets.items():
            member = torch.isin(self.labels, torch.tensor(classes, device=self.labels.device))
            found[name] = (self.model, self.loss, (self.data[0][member], self.data[1][member]))
        return found


_Source = _RunSource | _TargetSource


def _draw(found: Mapping[tuple[str, str | None], Spectrum], path: Path, title: str) -> Path:
    from landscape_lab.figures import curvature_bars, save, spectrum

    named = {_label(*key): one for key, one in found.items()}
    pictures = []
    if any(one.density is not None for one in named.values()):
        pictures += save(spectrum(named, title=title), path)
    if len(named) > 2 or not pictures:
        pictures += save(curvature_bars(named, title=title), path.with_name(f"{path.name}-values"))
    return pictures[0]


# -- several epochs --------------------------------------------------------------------------------------------------


def _refuse_unknown(study: Study, epochs: Sequence[int]) -> None:
    known = study.run.checkpoints()
    unknown = [epoch for epoch in epochs if epoch not in known]
    if unknown:
        there = ", ".join(map(str, known))
        raise InputError(f"{study.run.path} holds no checkpoint of epoch {unknown[0]}; it has {there}")


def _share_out(
    study: Study,
    data_root: str | None,
    target: str | None,
    epochs: Sequence[int],
    subsets: Sequence[str],
    each: Sequence[CurvatureSettings],
    options: Mapping[str, Any],
    memory_limit: int | None,
    jobs: int,
) -> None:
    """Let several processes store the results of neighbouring epochs in the run."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    import torch

    from landscape_lab.analysis.memory import GraphBudget

    jobs = min(jobs, len(epochs))
    # What all together may take, as a process sees only what is free when it starts.
    limit = (GraphBudget(study.device).left if memory_limit is None else memory_limit) // jobs
    threads = max(1, torch.get_num_threads() // jobs)
    shares = [epochs[len(epochs) * k // jobs : len(epochs) * (k + 1) // jobs] for k in range(jobs)]
    with (
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool,
        console.progress_bar(f"{jobs} processes: epochs", len(epochs)) as advance,
    ):
        waiting = {
            pool.submit(
                _one_share,
                str(study.run.path),
                str(study.device),
                data_root,
                target,
                share,
                subsets,
                each,
                options,
                limit,
                threads,
            ): len(share)
            for share in shares
        }
        for done in as_completed(waiting):
            done.result()
            advance(waiting[done])


def _one_share(
    path: str,
    device: str,
    data_root: str | None,
    target: str | None,
    epochs: Sequence[int],
    subsets: Sequence[str],
    each: Sequence[CurvatureSettings],
    options: Mapping[str, Any],
    memory_limit: int,
    threads: int,
) -> None:
    import torch

    from landscape_lab.studies.curvature import spectra

    torch.set_num_threads(threads)
    study = open_study(path, device, data_root, target)
    for settings in each:
        for epoch in epochs:
            warm = settings.density_products == 0
            spectra(study, subsets, epoch, settings, warm=warm, memory_limit=memory_limit, **options)


def _over_epochs(
    study: Study,
    epochs: Sequence[int],
    subsets: Sequence[str],
    each: Sequence[CurvatureSettings],
    options: Mapping[str, Any],
    memory_limit: int | None,
    as_json: bool,
) -> None:
    from landscape_lab.figures import curvature_curves, save
    from landscape_lab.studies import spread
    from landscape_lab.studies.curvature import spectra, spectra_cost

    found: dict[str, dict[int, Spectrum]] = {}
    total = sum(spectra_cost(study, subsets, settings, **options) for settings in each) * len(epochs)
    with console.progress_bar(f"{len(epochs)} epochs: samples × products", total) as advance:
        for settings in each:
            for epoch in epochs:
                warm = settings.density_products == 0
                one = spectra(
                    study, subsets, epoch, settings, warm=warm, memory_limit=memory_limit, progress=advance, **options
                )
                for name, spectrum in one.items():
                    found.setdefault(_label(name, settings.block), {})[epoch] = spectrum
    picture = save(
        curvature_curves(found, title=study.run.path.name),
        study.run.path / "figures" / f"hessian-epochs{each[0].suffix}",
    )
    if as_json:
        console.result(
            {name: [{"epoch": epoch, **_numbers(one)} for epoch, one in curve.items()] for name, curve in found.items()}
        )
        return
    shown = spread(epochs, 5)  # as many columns as a terminal has room for
    quantities: dict[str, Callable[[Spectrum], str]] = {
        "λ_max ± residual": lambda one: with_error(one.lambda_max, one.lambda_max_residual),
        "trace ± s.e.": lambda one: with_error(one.trace.value, one.trace.stderr),
    }
    caption = f"{len(shown)} of {len(epochs)} epochs; --json prints all" if len(shown) < len(epochs) else ""
    for quantity, text in quantities.items():
        rows = [[name, *(text(curve[epoch]) for epoch in shown)] for name, curve in found.items()]
        header = ["classes", *(f"epoch {epoch}" for epoch in shown)]
        console.table(f"{study.run.path}: {quantity}", header, rows, caption)
    spent = sum(_spent(one) for curve in found.values() for one in curve.values())
    console.note(f"{spent} products; picture: {picture[0]}")


# -- back ends that check us -----------------------------------------------------------------------------------------


def _reference(
    backend: str, part: tuple[nn.Module, Loss, tuple[Tensor, Tensor]], settings: CurvatureSettings
) -> Reference:
    from landscape_lab.analysis import MATRICES, pyhessian_reference, scipy_reference

    model, loss, data = part
    if backend == "scipy":
        op = MATRICES[settings.operator](model, loss, data, parameters=settings.block, batch_norm=settings.batch_norm)
        return scipy_reference(op, seed=settings.seed)
    if not _plain(settings):
        raise InputError("PyHessian knows only the whole Hessian with running BatchNorm statistics")
    steps = settings.density_products
    return pyhessian_reference(
        model,
        loss,
        data,
        trace_products=settings.trace_products,
        density_steps=steps // 2,
        density_runs=2 if steps else 0,
        seed=settings.seed,
    )


def _plain(settings: CurvatureSettings) -> bool:
    """Whether PyHessian can do it."""
    return settings.operator == "hessian" and not settings.block and settings.batch_norm == "running"


def _checked(
    source: _Source, found: Mapping[tuple[str, str | None], Spectrum], each: Sequence[CurvatureSettings]
) -> dict[tuple[str, str | None], tuple[Comparison, ...]]:
    from landscape_lab.analysis import compare

    results = {}
    parts = source.parts()
    for settings in each:
        plain = _plain(settings)
        if not plain:
            console.note("PyHessian knows only the whole Hessian with running statistics: checked by scipy alone")
        for name, part in parts.items():
            references = [_reference("pyhessian", part, settings)] if plain else []
            references.append(_reference("scipy", part, settings))
            results[name, settings.block] = compare(found[name, settings.block], references)
    return results


def _by_another(source: _Source, backend: str, each: Sequence[CurvatureSettings], as_json: bool) -> None:
    found = {
        _label(name, settings.block): _reference(backend, part, settings)
        for settings in each
        for name, part in source.parts().items()
    }
    if as_json:
        keys = ("backend", "lambda_max", "lambda_min", "trace", "trace_stderr", "products", "seconds")
        console.result({name: {key: getattr(one, key) for key in keys} for name, one in found.items()})
        return
    rows = [
        [
            name,
            *("–" if value is None else number(value, 4) for value in (one.lambda_max, one.lambda_min)),
            "–" if one.trace is None else with_error(one.trace, one.trace_stderr or 0.0),
            str(one.products),
            f"{one.seconds:.1f} s",
        ]
        for name, one in found.items()
    ]
    console.table(
        f"{source.title}, by {backend}",
        ["classes", "λ_max", "λ_min", "trace ± s.e.", "products", "time"],
        rows,
    )


def _print_check(comparisons: Mapping[tuple[str, str | None], Sequence[Comparison]]) -> None:
    rows = []
    for key, some in comparisons.items():
        for row in some:
            distance = row.quantity == "density"  # between two curves, and without an error
            ours = "–" if distance else with_error(row.ours, row.ours_error)
            theirs = number(row.theirs, 5) if row.theirs_error is None else with_error(row.theirs, row.theirs_error)
            rows.append(
                [
                    _label(*key),
                    row.backend,
                    "density: W1 / span" if distance else row.quantity,
                    ours,
                    "–" if distance else theirs,
                    number(row.difference, 2),
                    "–" if distance else "yes" if row.agrees else "NO",
                ]
            )
    header = ["classes", "back end", "quantity", "ours", "theirs", "difference", "agree"]
    console.table("Checked by other back ends (agree: within three errors of both)", header, rows)


# -- what is said ----------------------------------------------------------------------------------------------------


def _label(name: str, block: str | None) -> str:
    return name if block is None else f"{name}, {block}"


def _noun(settings: CurvatureSettings) -> str:
    names = {
        "hessian": "Hessian",
        "ggn": "Gauss-Newton",
        "fisher": "empirical Fisher",
        "fisher-true": "true Fisher",
    }
    statistics = "" if settings.batch_norm == "running" else f", BatchNorm statistics: {settings.batch_norm}"
    return f"{names[settings.operator]}{statistics}"


def _numbers(one: Spectrum) -> dict[str, Any]:
    """A spectrum for machines."""
    content: dict[str, Any] = {
        "operator": one.operator,
        "batch_norm": one.batch_norm,
        "samples": one.samples,
        "parameters": one.parameters,
        "products": _spent(one),
        "lambda_max": one.lambda_max,
        "lambda_max_residual": one.lambda_max_residual,
        "lambda_max_upper": one.lambda_max_upper,
        "lambda_min": one.lambda_min,
        "lambda_min_residual": one.lambda_min_residual,
        "lambda_min_lower": one.lambda_min_lower,
        "converged": one.converged,
        "trace": one.trace.value,
        "trace_stderr": one.trace.stderr,
        "trace_interval": [one.trace.low, one.trace.high],
    }
    if one.density is not None:
        for name in ("negative_mass", "negative_fraction", "effective_rank"):
            estimate = getattr(one.density, name)()
            content[name] = {
                "value": estimate.value,
                "stderr": estimate.stderr,
                "interval": [estimate.low, estimate.high],
            }
        content["bulk_edge"] = one.density.bulk_edge()
        content["bulk_ratio"] = one.bulk_ratio
    if one.data is not None:
        content["data_stderr"] = {
            "lambda_max": one.data.lambda_max,
            "lambda_min": one.data.lambda_min,
            "trace": one.data.trace,
            "resamples": one.data.resamples,
        }
    return content


def _spent(one: Spectrum) -> int:
    """Products for a subset; those of a shared trace are not in the spectrum's own number."""
    return one.products + (one.trace.products if one.density is None else 0)


def _print(title: str, found: Mapping[str, Spectrum]) -> None:
    dense = any(one.density is not None for one in found.values())
    drawn = any(one.data is not None for one in found.values())
    header = ["classes", "samples", "λ_max ± residual", "95 % below", "λ_min ± residual", "trace ± s.e."]
    header += ["negative mass", "λ_max / bulk"] if dense else []
    header += ["s.e. of λ_max from the draw", "… of the trace"] if drawn else []
    rows = []
    for name, one in found.items():
        row = [
            name,
            str(one.samples),
            with_error(one.lambda_max, one.lambda_max_residual) + ("" if one.converged else " *"),
            number(one.lambda_max_upper, 5),
            with_error(one.lambda_min, one.lambda_min_residual),
            with_error(one.trace.value, one.trace.stderr),
        ]
        if dense and one.density is not None:
            share = one.density.negative_mass()
            row += [f"{with_error(100 * share.value, 100 * share.stderr)} %", number(one.bulk_ratio, 3)]
        if drawn and one.data is not None:
            row += [number(one.data.lambda_max, 2), number(one.data.trace, 2)]
        rows.append(row)
    spent = sorted({_spent(one) for one in found.values()})
    span = str(spent[0]) if len(spent) == 1 else f"{spent[0]} to {spent[-1]}"
    caption = f"{span} products for each subset"
    if not all(one.converged for one in found.values()):
        caption += "; * not converged to 0.1 % of the largest magnitude"
    console.table(title, header, rows, caption)
