from __future__ import annotations

import pytest
from guard_cases import trained

from landscape_lab.guard import Measurement


@pytest.fixture(scope="session")
def quick() -> Measurement:
    from guard_fixtures import everything, measured

    return measured(trained(0), everything())
