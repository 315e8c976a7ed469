# SPDX-License-Identifier: Apache-2.0
"""`bnngen analyze` says which memory a program exceeds, and by how much."""

from __future__ import annotations

import pytest

from bnngen.analysis import MemoryUse


@pytest.mark.parametrize(("ram", "const", "excess"), [
    (100, 200, {}),
    (101, 200, {"RAM": 1}),
    (100, 250, {"flash": 50}),
    (130, 201, {"RAM": 30, "flash": 1}),
])  # fmt: skip
def test_excess_names_the_memory(ram, const, excess):
    memory = MemoryUse(90, 80, ram, 100, const, 200)
    assert memory.excess == excess
    assert memory.fits == (not excess)
