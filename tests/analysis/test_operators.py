from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from analysis_cases import Case, cross_entropy
from scipy.sparse.linalg import eigsh
from torch import nn

from landscape_lab.analysis.operators import Hessian
from landscape_lab.parameters import ParameterSpace


def test_matches_torch_func_with_batch_norm_frozen_and_unused_parameters(conv: Case) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches)
    assert op.shape == (123, 123)
    assert op.samples == 24
    torch.testing.assert_close(op.dense(), conv.dense(), rtol=1e-9, atol=1e-11)


def test_training_mode_of_the_model_does_not_matter(conv: Case) -> None:
    v = torch.randn(123, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = Hessian(conv.model.eval(), cross_entropy, conv.batches) @ v
    assert torch.equal(Hessian(conv.model.train(), cross_entropy, conv.batches) @ v, expected)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 24, 100])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_ragged_batches_weigh_every_sample_alike(conv: Case, batch_size: int, reduction: str) -> None:
    loss = nn.CrossEntropyLoss(reduction=reduction)
    V = torch.randn(123, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    op = Hessian(conv.model, loss, conv.batches, batch_size=batch_size)
    torch.testing.assert_close(op @ V, conv.dense() @ V, rtol=1e-9, atol=1e-11)


def test_class_hessians_add_up(conv: Case) -> None:
    whole = Hessian(conv.model, cross_entropy, conv.batches, batch_size=5).dense()
    total = torch.zeros_like(whole)
    for label in range(3):
        members = conv.targets == label
        part = Hessian(conv.model, cross_entropy, (conv.inputs[members], conv.targets[members]))
        torch.testing.assert_close(part.dense(), conv.dense(members), rtol=1e-9, atol=1e-11)
        total += part.samples / 24 * part.dense()
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=1e-13)


def test_least_squares_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output[:, 0] - target).square()

    H = Hessian(model, loss, (X, torch.zeros(11, dtype=torch.float64)), batch_size=3).dense()
    torch.testing.assert_close(H, 2 / 11 * X.T @ X, rtol=1e-12, atol=1e-14)


def test_softmax_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (9,), generator=generator)
    model = nn.Linear(4, 3, bias=False).double()
    p = model(X).softmax(1).detach()
    expected = torch.stack(
        [torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(x, x)) for q, x in zip(p, X, strict=True)]
    ).mean(0)
    torch.testing.assert_close(Hessian(model, cross_entropy, (X, y), batch_size=4).dense(), expected)


def test_a_part_of_the_parameters_gives_the_block(conv: Case) -> None:
    space = ParameterSpace(conv.model)
    head = ParameterSpace(conv.model, where=lambda name: name.startswith("head"))
    block = space.range_of("head")
    H = Hessian(conv.model, cross_entropy, conv.batches, parameters=head).dense()
    torch.testing.assert_close(H, conv.dense()[block, block], rtol=1e-9, atol=1e-11)


def test_columns_agree_with_single_vectors(conv: Case) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches, batch_size=7)
    V = torch.randn(123, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = op @ V
    assert product.shape == V.shape
    for k in range(4):
        torch.testing.assert_close(product[:, k], op @ V[:, k], rtol=1e-12, atol=1e-14)
    assert (op @ V[:, :0]).shape == (123, 0)
    with pytest.raises(ValueError, match="got \\(7,\\)"):
        op @ V[:7, 0]


def test_scipy_finds_the_same_eigenvalues(conv: Case) -> None:
    op = Hessian(conv.model, cross_entropy, conv.batches).to_scipy()
    values = torch.linalg.eigvalsh(conv.dense())
    found = torch.from_numpy(eigsh(op, k=4, which="LA", return_eigenvectors=False))
    torch.testing.assert_close(found.sort().values, values[-4:], rtol=1e-9, atol=1e-12)


def test_float32_stays_near_float64(conv: Case) -> None:
    v = torch.randn(123, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = conv.dense() @ v
    product = Hessian(conv.model.float(), cross_entropy, (conv.inputs.float(), conv.targets)) @ v.float()
    assert product.dtype == torch.float32
    assert (product - expected).norm() <= 1e-4 * expected.norm()


def test_a_loss_linear_in_the_parameters_has_no_curvature() -> None:
    model = nn.Linear(3, 1)
    op = Hessian(model, lambda output, target: output[:, 0], (torch.randn(5, 3), torch.zeros(5)))
    assert not op.dense().any()


def test_attention_has_a_second_derivative() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Linear(4, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.maps(x)[:, None].chunk(3, dim=-1)
            return F.scaled_dot_product_attention(q, k, v)[:, 0, :].mean(1)

    torch.manual_seed(0)
    model, X, y = Attention(), torch.randn(6, 5, 4), torch.randint(0, 4, (6,))
    H = Hessian(model, cross_entropy, (X, y)).dense()
    torch.testing.assert_close(H, H.T, rtol=1e-4, atol=1e-6)
    assert H.any()
