# SPDX-License-Identifier: Apache-2.0
"""Every registered variant, on every platform that can run it, against the definition: each bit of each output.

_ref is a variant like the others here, so equality with the definition is equality with _ref.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bnngen import resources
from bnngen.lower.float_kernels import FLOAT_KERNELS
from bnngen.lower.kernels import KERNELS
from tests.kernels import harness
from tests.kernels.cases import Case, binary_cases, dense_cases, integer_cases, map_cases, pool_cases
from tests.kernels.element_cases import element_cases, move_cases

STATUS = {1: "changed an input", 2: "wrote outside its buffers", 3: "changed an input and wrote outside"}


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    made = (binary_cases, integer_cases, pool_cases, map_cases, dense_cases, element_cases, move_cases)
    return [case for cases_of in made for case in cases_of()]


@pytest.fixture(scope="session", params=harness.PLATFORMS, ids=lambda platform: platform.name)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(platform, compiled harness); skipped, with the reason, where tools are missing."""
    platform = request.param
    if platform.missing:
        pytest.skip(f"{platform.name}: {', '.join(platform.missing)} not installed")
    return platform, harness.build(platform, tmp_path_factory.mktemp(platform.name))


def calls_of(case: Case, features: frozenset[str]) -> list[harness.Call]:
    """The case on each variant that suits: all rows, and the middle ones alone."""
    rows = case.shape.rows
    chosen = [v for v in KERNELS[case.kernel].variants if v.features <= features and v.suits(case.shape)]
    ranges = {(0, rows), (rows // 3, rows - rows // 4)}
    return [harness.Call(case, variant, *r) for variant in chosen for r in sorted(ranges)]


def test_every_variant_equals_the_definition(program, cases):
    platform, path = program
    calls = [call for case in cases for call in calls_of(case, platform.features)]
    for call, (status, output) in zip(calls, harness.run(platform, path, calls), strict=True):
        assert status == 0, f"{platform.name}: {call} {STATUS[status]}"
        expected = call.expected()
        if output != expected:
            at = next(i for i, (a, b) in enumerate(zip(output, expected, strict=True)) if a != b)
            pytest.fail(f"{platform.name}: {call}: byte {at} is {output[at]:#x}, not {expected[at]:#x}")


def test_no_variant_goes_untested(cases):
    """Each variant in the registry runs on some platform, and has cases that suit it."""
    for kernel in KERNELS.values():
        for variant in kernel.variants:
            platforms = [p for p in harness.PLATFORMS if variant.features <= p.features]
            assert platforms, f"{kernel.name}_{variant.name} runs nowhere"
            suiting = [c for c in cases if c.kernel == kernel.name and variant.suits(c.shape)]
            assert len(suiting) >= 10, f"{kernel.name}_{variant.name}: {len(suiting)} cases"


def test_every_file_of_kernels_is_registered():
    shared = {"window.h", "neon.h", "bconv2d_window.h", "float.h"}
    kernels = [*KERNELS.values(), *FLOAT_KERNELS.values()]
    registered = {f"{k.header}_{v.name}.h" for k in kernels for v in k.variants}
    assert {path.name for path in (resources.runtime() / "kernels").iterdir()} == registered | shared


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_the_headers_are_cplusplus_too(compiler: str, tmp_path: Path):
    platform = harness.PLATFORMS[0]
    (tmp_path / "generated.cpp").write_text(harness.source(platform.features), encoding="utf-8")
    include = [f"-I{path}" for path in (harness.HERE, resources.runtime(), resources.runtime() / "include")]
    flags = ["-x", "c++", "-std=c++11", *harness.WARNINGS[1:-2], "-Werror", "-march=x86-64-v2", "-fsyntax-only"]
    if harness.shutil.which(compiler) is None:
        pytest.skip(f"{compiler} not installed")
    subprocess.run([compiler, *flags, *include, str(tmp_path / "generated.cpp")], check=True, timeout=120)
