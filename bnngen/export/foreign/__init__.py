# SPDX-License-Identifier: Apache-2.0
"""Other people's ONNX: files of tf2onnx (from Larq) and of QONNX or Brevitas, translated into our dialect.

    reading.py    the file, folded and executable       qonnx.py    QONNX operators in standard ones
    reader.py     nodes -> net, by operators.py and windows.py; layout.py: what the axes of a tensor are
    net.py        the operations that patterns rewrite
    quantizers.py, elementwise.py, convolutions.py      the patterns, one function each
    translate.py  their order                           emit.py     net -> nodes of the dialect

What is recognised: docs/other-onnx.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bnngen.export.foreign.emit import emit_graph
from bnngen.export.foreign.operators import HANDLERS
from bnngen.export.foreign.reader import read_net
from bnngen.export.foreign.reading import read_file
from bnngen.export.foreign.translate import recognise
from bnngen.export.sources import Source

ENGINE = "the original file"
ENGINE_QONNX = f"{ENGINE}, its QONNX operators written out,"


def open_foreign(path: str | Path) -> Source:
    """Return a foreign ONNX file as a source of an export.

    Raises UsageError where there is no file, ModelError naming the node for what is not recognised.
    """
    path = Path(path)
    file = read_file(path)
    net, order = read_net(file, HANDLERS)
    tensor = recognise(net) or file.output
    graph = emit_graph(net)

    def run(images: np.ndarray) -> Iterator[np.ndarray]:
        given = images if "W" in order else images[:, :, 0]
        given = given if order.endswith("C") else np.ascontiguousarray(np.moveaxis(given, -1, 1))
        for scores in file.run(given, tensor):
            yield scores.reshape(len(scores), -1).astype(np.float32)

    return Source(graph, run, ENGINE_QONNX if file.rewritten else ENGINE, path.stem)
