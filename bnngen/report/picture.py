# SPDX-License-Identifier: Apache-2.0
"""How a picture reaches the disk: whole or not at all, and the same bytes for the same figure."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bnngen.errors import UsageError

if TYPE_CHECKING:  # matplotlib is slow to load
    from matplotlib.figure import Figure


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure to `path` as a PNG without date or version, in place of an earlier one.

    Raises UsageError where it cannot be written; then the earlier picture stands, and nothing is beside it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, format="png", metadata={"Software": None})
        os.replace(partial, path)
    except OSError as error:
        raise UsageError("cannot write the picture", where=str(path), why=error.strerror or str(error),
                         fix="give a path in a folder that exists and can be written to") from error
    finally:
        with suppress(OSError):
            partial.unlink()
