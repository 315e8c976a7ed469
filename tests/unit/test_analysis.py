# SPDX-License-Identifier: Apache-2.0
"""`bnngen analyze` says which memory a program exceeds, and by how much."""

from __future__ import annotations

import pytest

from bnngen.analysis import MemoryUse, layer_costs
from tests.golden import wide


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


def test_constants_of_every_op_count():
    graph = wide.elements()
    cost = {layer.name: layer.weight_bytes for layer in layer_costs(graph)}
    assert cost["gate"] == 257 * 2 and cost["small_table"] == 256
    assert cost["moved"] == 4 * 55 and cost["excite"] == 31 * 12
    assert cost["codes"] == 55 * (4 * 3 + 1)  # levels, and whether they fall
    assert cost["slope"] == 31 * (4 + 2 * 12)  # knots, and the two rules
    assert cost["depthwise"] == 55 * (25 + 12)
    encoded = {layer.name: layer.weight_bytes for layer in layer_costs(wide.bits_first())}
    assert encoded["levels"] == 33 * 4 and encoded["planes"] == 24 * 4


def test_groups_divide_the_multiplications():
    macs = {layer.name: (layer.binary_macs, layer.integer_macs) for layer in layer_costs(wide.elements())}
    assert macs["depthwise"] == (0, 5 * 4 * 55 * 25) and macs["twice"] == (0, 5 * 4 * 110 * 9)
    assert macs["grow"] == (9 * 8 * 8 * 9 * 31, 0)
