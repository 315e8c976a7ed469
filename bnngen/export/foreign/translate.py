# SPDX-License-Identifier: Apache-2.0
"""The stages of the translation, one after the other."""

from __future__ import annotations

from bnngen.export.foreign import convolutions, elementwise, quantizers
from bnngen.export.foreign.net import Net

MOST_ROUNDS = 1000  # every pattern shortens something; a chain of them is never that long

STAGES = (  # every stage is repeated until none of its patterns finds anything
    quantizers.PATTERNS,
    quantizers.LAST,
    elementwise.PATTERNS,
    convolutions.PATTERNS,
    elementwise.PATTERNS,
)


def recognise(net: Net) -> str:
    """Apply all patterns to a net, in place. Return the file's tensor that a softmax at the end reads, or ""."""
    before = _without_softmax(net)
    for stage in STAGES:
        for _ in range(MOST_ROUNDS):
            hits = [net.rewrite(pattern) for pattern in stage]
            net.drop_dead()
            if not any(hits):
                break
        else:
            raise AssertionError("patterns undo one another")
    return before


def _without_softmax(net: Net) -> str:
    """Leave a softmax at the end out: it does not change the winner. Return the file's tensor that it read, or ""."""
    last = net.writer(net.output, "softmax")
    if last is None:
        return ""
    net.output = last.inputs[0]
    net.drop_dead()
    return last.node.input[0]
