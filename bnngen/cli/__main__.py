# SPDX-License-Identifier: Apache-2.0
"""`python -m bnngen.cli` is `bnngen`."""

from bnngen.cli import main

main()
