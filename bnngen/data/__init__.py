# SPDX-License-Identifier: Apache-2.0
"""Images with labels, from wherever they come, in one form: uint8 [N, H, W, C] and int64 [N].

Nothing here needs TensorFlow: `run`, `validate` and `learn` load data without it.
"""

from bnngen.data.dataset import Dataset, fitted, holdout, subset
from bnngen.data.image import load_image
from bnngen.data.load import DataFetchNeeded, cache_file, load, npz_fault
from bnngen.data.names import CLASS_NAMES

__all__ = [
    "CLASS_NAMES", "DataFetchNeeded", "Dataset", "cache_file", "fitted", "holdout", "load", "load_image", "npz_fault",
    "subset",
]  # fmt: skip
