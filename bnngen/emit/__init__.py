# SPDX-License-Identifier: Apache-2.0
"""Program and Plan -> a directory of C that compiles without bnngen."""

from bnngen.emit.render import emit_project

__all__ = ["emit_project"]
