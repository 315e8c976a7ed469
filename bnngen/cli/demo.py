# SPDX-License-Identifier: Apache-2.0
"""`bnngen demo`."""

from __future__ import annotations

import click


@click.command()
def demo() -> None:
    """The whole path once, on handwritten digits."""
