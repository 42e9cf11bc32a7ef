"""Without its library a callback says what to install."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("module", "library", "install"),
    [
        ("lightning", "lightning", r"landscape-lab\[lightning\]"),
        ("pytorch_lightning", "pytorch_lightning", "pytorch-lightning"),
        ("transformers", "transformers", r"landscape-lab\[transformers\]"),
    ],
)
def test_a_missing_library_is_named(monkeypatch: Any, module: str, library: str, install: str) -> None:
    class Nothing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.split(".")[0] == library:
                raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    name = f"landscape_lab.integrations.{module}"
    for known in [name, *(each for each in sys.modules if each.split(".")[0] == library)]:
        monkeypatch.delitem(sys.modules, known, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Nothing(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match=f"needs {library}: pip install '{install}'"):
        importlib.import_module(name)
    sys.modules.pop(name, None)
