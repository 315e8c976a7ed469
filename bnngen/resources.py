# SPDX-License-Identifier: Apache-2.0
"""The one locator of the files that are not Python: templates, the C runtime, target descriptions.

In a checkout they stand beside the package; in a wheel they travel inside it, under `_resources`.
"""

from __future__ import annotations

from pathlib import Path

KINDS = ("templates", "runtime_c", "targets")


def resource_dir(kind: str) -> Path:
    """Return the directory of `kind` (one of KINDS). FileNotFoundError: the installation is incomplete."""
    if kind not in KINDS:
        raise ValueError(f"unknown resource {kind!r}; there are {', '.join(KINDS)}")
    package = Path(__file__).resolve().parent
    for candidate in (package / "_resources" / kind, package.parent / kind):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"bnngen is not installed completely: {kind} is missing beside {package}")
