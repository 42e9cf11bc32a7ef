from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from torch import Tensor, nn

from landscape_lab.analysis.directions import filter_normalised, random_direction
from landscape_lab.analysis.surface import Line, Plane, evaluate
from landscape_lab.errors import InputError
from landscape_lab.parameters import ParameterSpace

SUBSETS = {"all": (0, 1, 2), "head": (0,), "rest": [2, 1]}
X = torch.tensor([-0.5, 0.0, 1.0])
Y = torch.tensor([-1.0, 0.25])


def plane_of(model: nn.Module) -> Plane:
    space = ParameterSpace(model)
    x, y = (filter_normalised(random_direction(space, seed=seed), space) for seed in (0, 1))
    return Plane(space.vector(), x, y)


def moved(model: nn.Module, vector: Tensor) -> nn.Module:
    """A copy of the model with other parameters, by another way than the library's."""
    model = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector, [p for p in model.parameters() if p.requires_grad])
    return model


@pytest.mark.parametrize("batch_size", [5, 100])
def test_each_point_is_a_plain_evaluation(conv: Case, batch_size: int) -> None:
    plane, done = plane_of(conv.model), []
    surface = evaluate(
        conv.model.train(),
        cross_entropy,
        conv.batches,
        plane,
        x=X,
        y=Y,
        subsets=SUBSETS,
        num_classes=3,
        batch_size=batch_size,
        progress=done.append,
    )
    assert surface.losses.shape == surface.accuracies.shape == (3, 2, 3)
    assert surface.losses.dtype == torch.float64
    assert surface.subsets == ("all", "head", "rest")
    assert surface.counts == (24, 14, 10)
    assert sum(done) == 6
    for j, b in enumerate(Y.tolist()):
        for i, a in enumerate(X.tolist()):
            output = moved(conv.model, plane.origin + a * plane.x + b * plane.y).eval()(conv.inputs).detach()
            for name, classes in SUBSETS.items():
                member = torch.isin(conv.targets, torch.tensor(classes))
                loss = F.cross_entropy(output[member], conv.targets[member])
                accuracy = (output.argmax(1) == conv.targets)[member].double().mean()
                k = surface.subsets.index(name)
                torch.testing.assert_close(surface.of(name)[j, i], loss, rtol=1e-12, atol=1e-13)
                torch.testing.assert_close(surface.accuracies[k, j, i], accuracy)


def test_batch_statistics_are_those_of_training_mode(conv: Case) -> None:
    conv.model.drop.p = 0.0
    plane = plane_of(conv.model)
    surface = evaluate(
        conv.model,
        cross_entropy,
        conv.batches,
        plane,
        x=X,
        y=Y,
        subsets=SUBSETS,
        num_classes=3,
        batch_norm="batch",
        batch_size=9,
    )
    assert surface.batch_norm == "batch"
    for j, b in enumerate(Y.tolist()):
        for i, a in enumerate(X.tolist()):
            model = moved(conv.model, plane.point(a, b)).train()
            output = torch.cat([model(part).detach() for part in conv.inputs.split(9)])
            torch.testing.assert_close(surface.of("all")[j, i], F.cross_entropy(output, conv.targets))


def test_a_quadratic_loss_gives_a_quadratic_surface() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    targets = torch.arange(12) % 2
    model = nn.Linear(3, 2, bias=False).double()
    u, v = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    plane = Plane(torch.zeros(6, dtype=torch.float64), u, v)
    x, y = torch.linspace(-2, 2, 5), torch.linspace(-1, 1, 3)
    surface = evaluate(
        model,
        lambda output, target: output.square().sum(1),
        (inputs, targets),
        plane,
        x=x,
        y=y,
        subsets={"one": [1]},
        num_classes=2,
    )
    some = inputs[targets == 1]
    M = torch.kron(torch.eye(2, dtype=torch.float64), some.T @ some / len(some))
    b, a = torch.meshgrid(y.double(), x.double(), indexing="ij")
    expected = a**2 * (u @ M @ u) + 2 * a * b * (u @ M @ v) + b**2 * (v @ M @ v)
    torch.testing.assert_close(surface.of("one"), expected, rtol=1e-12, atol=1e-13)


def test_a_line_is_one_row(conv: Case) -> None:
    plane = plane_of(conv.model)
    line = Line(plane.origin, plane.x)
    assert torch.equal(line.point(0.5), plane.point(0.5, 0.0))
    surface = evaluate(conv.model, cross_entropy, conv.batches, line, x=X, subsets=SUBSETS, num_classes=3)
    across = evaluate(
        conv.model, cross_entropy, conv.batches, plane, x=X, y=torch.zeros(1), subsets=SUBSETS, num_classes=3
    )
    assert surface.y.tolist() == [0.0]
    assert torch.equal(surface.losses, across.losses)


def test_a_part_of_the_parameters_can_move(conv: Case) -> None:
    head = ParameterSpace(conv.model, where=lambda name: name.startswith("head"))
    line = Line(head.vector(), random_direction(head))
    surface = evaluate(
        conv.model,
        cross_entropy,
        conv.batches,
        line,
        x=torch.tensor([0.7]),
        subsets={"all": (0, 1, 2)},
        num_classes=3,
        parameters=head,
    )
    model = copy.deepcopy(conv.model)
    nn.utils.vector_to_parameters(line.point(0.7), model.head.parameters())
    torch.testing.assert_close(surface.losses[0, 0, 0], F.cross_entropy(model(conv.inputs), conv.targets).detach())


def test_nan_and_infinity_are_kept_and_do_not_spread() -> None:
    model = nn.Linear(1, 2, bias=False).double()
    inputs = torch.tensor([[1.0], [torch.nan], [1e200]], dtype=torch.float64)
    data = inputs, torch.tensor([0, 1, 2])
    surface = evaluate(
        model,
        lambda output, target: output.square().sum(1),
        data,
        Line(torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)),
        x=torch.zeros(1),
        subsets={"finite": [0], "nan": [1], "infinite": [2], "both": [0, 2]},
        num_classes=3,
    )
    losses = surface.losses[:, 0, 0]
    assert losses[0] == 2.0
    assert losses[1].isnan()
    assert losses[2:].isinf().all()
    assert surface.accuracies[1, 0, 0] == 0.0


def test_overlapping_and_repeated_classes_count_once_each(conv: Case) -> None:
    plane = plane_of(conv.model)
    surface = evaluate(
        conv.model,
        cross_entropy,
        conv.batches,
        plane,
        x=X,
        y=Y,
        subsets={"a": [0, 1], "b": [1, 0, 0], "c": [1, 2]},
        num_classes=3,
    )
    assert surface.counts == (21, 21, 10)
    assert torch.equal(surface.of("a"), surface.of("b"))


def test_coordinates_of_axes_that_are_not_orthonormal() -> None:
    generator = torch.Generator().manual_seed(0)
    origin, x, y = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    plane = Plane(origin, 3 * x, y + 0.9 * x)
    wanted = torch.tensor([[0.0, 0.0], [1.5, -2.0], [-0.3, 4.0]], dtype=torch.float64)
    inside = torch.stack([plane.point(a, b) for a, b in wanted.tolist()])
    torch.testing.assert_close(plane.coordinates(inside), wanted, rtol=1e-12, atol=1e-12)
    assert float(plane.residual(inside).max()) < 1e-12
    Q, _ = torch.linalg.qr(torch.stack([x, y, torch.randn(50, generator=generator, dtype=torch.float64)]).T)
    off = inside + 2.5 * Q[:, 2]
    torch.testing.assert_close(plane.coordinates(off), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plane.residual(off), torch.full((3,), 2.5, dtype=torch.float64))
    with pytest.raises(InputError, match="parallel or zero"):
        Plane(origin, x, 2 * x).coordinates(inside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsets": {"few": [1], "none": [5]}, "num_classes": 6}, "holds no samples.*'none'"),
        ({"subsets": {"few": [7]}}, "'few' names class 7, but there are 3"),
        ({"subsets": {}}, "no subsets"),
        ({"num_classes": 2, "subsets": {"a": [0]}}, r"class numbers \(B,\) in 0 \.\. 1"),
        ({"x": torch.zeros(0)}, "grid is empty"),
        ({"y": None}, "needs coordinates x and y"),
    ],
)
def test_bad_input(conv: Case, changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"x": X, "y": Y, "subsets": SUBSETS, "num_classes": 3, **changes}
    with pytest.raises(InputError, match=message):
        evaluate(conv.model, cross_entropy, conv.batches, plane_of(conv.model), **arguments)


def test_more_bad_input(conv: Case) -> None:
    plane = plane_of(conv.model)
    grid = {"x": X, "y": Y, "subsets": SUBSETS, "num_classes": 3}
    with pytest.raises(InputError, match="holds no samples"):
        evaluate(conv.model, cross_entropy, (conv.inputs[:0], conv.targets[:0]), plane, **grid)
    short = Plane(plane.origin[:5], plane.x[:5], plane.y[:5])
    with pytest.raises(InputError, match="5 parameters, the model 123"):
        evaluate(conv.model, cross_entropy, conv.batches, short, **grid)
    surface = evaluate(conv.model, cross_entropy, conv.batches, plane, **grid)
    with pytest.raises(InputError, match="did you mean 'head'"):
        surface.of("heads")


def losses_at(model: nn.Module, point: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    output = moved(model, point).eval()(inputs).detach()
    return F.cross_entropy(output, targets, reduction="none")


def test_standard_errors_are_those_of_the_samples(conv: Case) -> None:
    plane = plane_of(conv.model)
    surface = evaluate(
        conv.model, cross_entropy, conv.batches, plane, x=X, y=Y, subsets=SUBSETS, num_classes=3, batch_size=7
    )
    assert surface.stderr is not None
    for j, b in enumerate(Y.tolist()):
        for i, a in enumerate(X.tolist()):
            losses = losses_at(conv.model, plane.point(a, b), *conv.batches)
            for k, classes in enumerate(SUBSETS.values()):
                some = losses[torch.isin(conv.targets, torch.tensor(classes))].numpy()
                expected = some.std(ddof=1) / len(some) ** 0.5
                assert float(surface.stderr[k, j, i]) == pytest.approx(expected, rel=1e-9)


def test_one_sample_has_no_standard_error(conv: Case) -> None:
    data = conv.inputs[:1], conv.targets[:1]
    label = int(conv.targets[0])
    surface = evaluate(
        conv.model, cross_entropy, data, plane_of(conv.model), x=X, y=Y, subsets={"it": [label]}, num_classes=3
    )
    assert surface.stderr is not None
    assert bool(surface.stderr.isnan().all())
    assert bool(surface.losses.isfinite().all())


def test_classes_that_were_thinned_out_count_what_they_were(conv: Case) -> None:
    plane, counts = plane_of(conv.model), {0: 140.0, 1: 7.0, 2: 30.0}
    surface = evaluate(
        conv.model,
        cross_entropy,
        conv.batches,
        plane,
        x=X,
        y=Y,
        subsets={"all": [0, 1, 2], "rest": [1, 2], "one": [1]},
        num_classes=3,
        class_counts=counts,
    )
    assert surface.stderr is not None
    losses = losses_at(conv.model, plane.point(1.0, -1.0), *conv.batches)
    parts = {c: losses[conv.targets == c].numpy() for c in range(3)}
    for k, classes in enumerate([(0, 1, 2), (1, 2), (1,)]):
        total = sum(counts[c] for c in classes)
        mean = sum(counts[c] / total * parts[c].mean() for c in classes)
        variance = sum((counts[c] / total) ** 2 * parts[c].var(ddof=1) / len(parts[c]) for c in classes)
        assert float(surface.losses[k, 0, 2]) == pytest.approx(mean, rel=1e-10)
        assert float(surface.stderr[k, 0, 2]) == pytest.approx(variance**0.5, rel=1e-9)


def test_reestimated_statistics_are_those_of_the_data_at_each_point(conv: Case) -> None:
    conv.model.drop.p = 0.0
    before = {name: tensor.clone() for name, tensor in conv.model.state_dict().items()}
    plane = plane_of(conv.model)
    surface = evaluate(
        conv.model,
        cross_entropy,
        conv.batches,
        plane,
        x=X,
        y=Y,
        subsets=SUBSETS,
        num_classes=3,
        batch_norm="reestimated",
    )
    assert surface.batch_norm == "reestimated"
    for j, b in enumerate(Y.tolist()):
        for i, a in enumerate(X.tolist()):
            model = moved(conv.model, plane.point(a, b)).eval()
            entering = model.conv(conv.inputs).detach()
            model.norm.running_mean.copy_(entering.mean((0, 2, 3)))
            model.norm.running_var.copy_(entering.var((0, 2, 3), unbiased=True))
            expected = F.cross_entropy(model(conv.inputs), conv.targets).detach()
            torch.testing.assert_close(surface.of("all")[j, i], expected)
    for name, tensor in conv.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Flattening(nn.Module):
    """An image network that takes channels-last images badly: it views them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.head = nn.Linear(2 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), -1) + x.view(len(x), -1))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_layout_and_parts_do_not_matter(batch_size: int | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = Flattening().double(), torch.randn(20, 2, 3, 3, dtype=torch.float64)
    targets = torch.arange(20) % 3
    plane = plane_of(model)
    surface = evaluate(
        model,
        cross_entropy,
        [(inputs[:13], targets[:13]), (inputs[13:], targets[13:])],
        plane,
        x=X,
        y=Y,
        subsets=SUBSETS,
        num_classes=3,
        batch_size=batch_size,
    )
    expected = losses_at(model, plane.point(1.0, 0.25), inputs, targets).mean()
    torch.testing.assert_close(surface.of("all")[1, 2], expected)


def test_a_stopped_sweep_goes_on_to_the_same_bits(conv: Case) -> None:
    plane, kept, seen = plane_of(conv.model), [], []
    arguments = {"x": X, "y": Y, "subsets": SUBSETS, "num_classes": 3}

    def stop(points: int) -> None:
        seen.append(points)
        if len(seen) == 5:
            raise KeyboardInterrupt

    whole = evaluate(conv.model, cross_entropy, conv.batches, plane, **arguments)
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            conv.model, cross_entropy, conv.batches, plane, keep=kept.append, keep_every=0.0, progress=stop, **arguments
        )
    assert int(kept[-1].done.sum()) == 4
    assert bool(kept[-1].values[0].isfinite().all())
    calls, done = [], []
    conv.model.register_forward_hook(lambda *_: calls.append(1))
    again = evaluate(
        conv.model,
        cross_entropy,
        conv.batches,
        plane,
        known=kept[-1],
        progress=done.append,
        batch_size=100,
        **arguments,
    )
    assert done == [4, 1, 1]
    assert len(calls) == 2 + 1  # two points, and the trial of the layout
    for name in ("losses", "accuracies", "stderr"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
