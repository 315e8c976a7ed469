# SPDX-License-Identifier: Apache-2.0
"""The support table says what the code does: every op has a kernel named, the page is current."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bnngen.cli.operators import operators
from bnngen.lower.kernels import KERNELS
from bnngen.lower.layers import LOWERINGS
from bnngen.lower.support import COMPUTED_BY, op_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"


def test_every_op_and_every_kernel_has_its_place():
    assert set(COMPUTED_BY) == set(LOWERINGS)
    assert {name for names in COMPUTED_BY.values() for name in names} == set(KERNELS)
    assert all(row.meaning for row in op_rows())


def test_the_page_is_what_the_command_prints():
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    result = CliRunner().invoke(operators, ["--markdown"])
    assert result.exit_code == 0
    assert PAGE.read_text(encoding="utf-8") == result.output, "bnngen operators --markdown > docs/operators.md"


def test_what_is_refused_says_why_and_what_instead():
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    from bnngen.export.support import layer_rows, refused_rows

    assert all(why and fix for _, why, fix in refused_rows())
    assert not {name for name, _, _ in refused_rows()} & {name for name, _ in layer_rows()}


def test_what_is_exported_is_described_for_those_who_use_it():
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    from bnngen.export.support import DESCRIPTIONS, layer_rows, operation_names

    rows = dict(layer_rows())
    assert set(rows) == set(DESCRIPTIONS), "a layer without a description, or the other way round"
    assert "kernel" in rows["larq.MagnitudeAwareSign"] and "'activations'" in rows["larq.DoReFa"]
    assert {"relu", "tanh", "swish"} <= set(rows["keras.Activation"].replace(",", "").split())
    assert {"x + y", "tf.concat", "tf.math.reduce_mean"} <= set(operation_names())
