from __future__ import annotations

import pytest
import torch
from analysis_cases import Case, ConvNet, make_case, mlp_net
from torch import Tensor


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def conv() -> Case:
    """123 trainable parameters, 24 samples of three classes (14, 7, 3)."""
    return make_case(ConvNet, (1, 5, 5), (14, 7, 3), 10, 0.05)


@pytest.fixture(scope="session")
def mlp() -> Case:
    """443 parameters, 150 samples of five classes; trained, so that a few eigenvalues dominate."""
    return make_case(mlp_net, (16,), (70, 40, 20, 12, 8), 60, 0.1)


@pytest.fixture(scope="session")
def mlp_hessian(mlp: Case) -> Tensor:
    H = mlp.dense()
    return (H + H.T) / 2
