# SPDX-License-Identifier: Apache-2.0
"""The headers of the runtime stand beside each other in one file: no name is defined twice."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bnngen import resources

NAMES = "map_ref pool_ref dense_ref element_ref move_ref encode_ref conv2d_ref conv2d_gather conv2d_depthwise"
KERNELS = tuple(f"{name}.h" for name in (*NAMES.split(), "bconv2d_ref", "bconv2d_x64"))
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror", "-Wno-unused-function"]


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("compiler", ["gcc -std=c99", "clang -std=c99", "g++ -x c++ -std=c++11"])
def test_all_headers_go_together(compiler, order, tmp_path):
    command = compiler.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} not installed")
    runtime = resources.runtime()
    headers = [f"bnn/{path.name}" for path in sorted((runtime / "include" / "bnn").glob("*.h"))]
    for part in ("learn", "protocol"):
        headers += [f"{part}/{path.name}" for path in sorted((runtime / part).glob("*.h"))]
    headers += [f"kernels/{name}" for name in KERNELS]
    assert {"bnn/kernel.h", "learn/fixed.h", "protocol/frame.h"} <= set(headers)
    if order == "backward":
        headers.reverse()
    source = tmp_path / "all.c"
    source.write_text("".join(f'#include "{name}"\n' for name in headers) + "int main(void) { return 0; }\n")
    paths = [f"-I{runtime / 'include'}", f"-I{runtime}", "-march=x86-64-v2", "-fsyntax-only"]
    done = subprocess.run([*command, *WARNINGS, *paths, str(source)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
