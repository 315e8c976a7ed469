# SPDX-License-Identifier: Apache-2.0
"""Analytic heads: nearest class mean, linear discriminants, ridge regression (docs/numerics.md, section 5.11)."""

from __future__ import annotations

from fractions import Fraction

from bnngen.lower.learning.config import Buffer, Part, Rule, Sizes, require
from bnngen.lower.learning.operands import operand_constants

SCORE_LIMIT = 2**30  # of the products that make up a score; the bias has as much room
SHRINKAGE_BITS = 12
PHI_MAX = 255
MAPPED_MOST = 2048  # BNN_CHOLESKY_MAX
PROJECTIONS = {"mean": 0, "lda": 0, "ridge": 256}
SHRINKAGE = {"mean": 0.0, "lda": 0.05, "ridge": 0.03}
SYMBOLS = {"mean": "bnn_head_mean", "lda": "bnn_head_lda", "ridge": "bnn_head_lda"}


def analytic_head(sizes: Sizes) -> Part:
    """Return the head that `sizes.config` asks for. Raises UsageError for options that cannot work."""
    config = sizes.config
    require(_rules(sizes))
    operands = operand_constants(sizes)
    largest = max(PHI_MAX if _projections(sizes) else 0, -operands["x_lo"], operands["x_hi"])
    row_max = min(32767, SCORE_LIMIT // (largest * _mapped(sizes)))
    constants = {
        **operands,
        "mapped": _mapped(sizes),
        "projection_seed": config.projection_seed,
        "phi_shift": max(0, (sizes.features.bit_length() - 1) // 2 - (8 - config.q_f)),
        "phi_max": PHI_MAX,
        "row_max": row_max,
        "row_shift": (row_max // largest).bit_length() - 1,
        "shrinkage": round(_penalty(sizes) * 2**SHRINKAGE_BITS),
        "moment_sets": _moment_sets(sizes),
        "regress": int(config.head == "ridge"),
        "undo": int(config.undo),
    }
    return Part(SYMBOLS[config.head], constants, _buffers(sizes), _items(sizes), observes=True)


def _projections(sizes: Sizes) -> int:
    given = sizes.config.projections
    return PROJECTIONS[sizes.config.head] if given is None else given


def _mapped(sizes: Sizes) -> int:
    return sizes.features + _projections(sizes)


def _shrinkage(sizes: Sizes) -> float:
    given = sizes.config.shrinkage
    return SHRINKAGE[sizes.config.head] if given is None else given


def _penalty(sizes: Sizes) -> Fraction:
    """Return what is added to the diagonal, relative to its mean: (1 - s) S + s I is S + s / (1 - s) I up to scale."""
    share = Fraction(_shrinkage(sizes))
    return share if sizes.config.head == "ridge" else share / (1 - share)


def _moment_sets(sizes: Sizes) -> int:
    if sizes.config.head == "mean":
        return 0
    return sizes.capacity if sizes.config.exact_forget else 1


def _rules(sizes: Sizes) -> list[Rule]:
    config = sizes.config
    length = f"a row has a value for each feature and each projection, and at most {MAPPED_MOST}"
    apart = "what is held back judges an experience that can be dropped: that needs the sums kept apart"
    return [
        (
            _projections(sizes) >= 0 and _mapped(sizes) <= MAPPED_MOST,
            "--projections",
            _projections(sizes),
            length,
        ),
        (0 <= _shrinkage(sizes) <= 0.9, "--shrinkage", _shrinkage(sizes), "it is a share, 0 to 0.9"),
        (0 <= config.projection_seed < 2**32, "--projection-seed", config.projection_seed, "it has 32 bits"),
        (config.undo or not config.hold_every, "--no-undo with --hold-every", config.hold_every, apart),
    ]


def _buffers(sizes: Sizes) -> tuple[Buffer, ...]:
    n, capacity = _mapped(sizes), sizes.capacity
    triangle, rows = n * (n + 1) // 2, capacity * n
    sums = [("sums", 4 * rows), ("moments", 4 * triangle * _moment_sets(sizes))]
    if sizes.config.undo:
        sums += [(f"new_{name}", size) for name, size in sums]
    kept = [Buffer(name, size, "int32_t") for name, size in sums if size]
    kept += [Buffer(name, 2 * rows, "int16_t") for name in ("cw", "tw")]
    kept += [Buffer(name, 4 * capacity, "int32_t") for name in ("bias", "new_bias")]
    scratch = [Buffer("x", 2 * n, "int16_t", "learn_step")]
    if sizes.config.head != "mean":
        kept += [Buffer("factor", 2 * (triangle + n), "int16_t"), Buffer("penalty", 8, "int64_t")]
        scratch.append(Buffer("vector", 8 * n, "int64_t", "learn_step"))
    return (*kept, *scratch)


def _items(sizes: Sizes) -> tuple[str, ...]:
    """In the order of bnn_rows_items and of the head's `items`."""
    sums = ["sums", *(["moments"] if _moment_sets(sizes) else [])]
    apart = [(name, f"new {name}") if sizes.config.undo else (name,) for name in sums]
    return ("cw", "tw", "bias", "new bias", *(name for names in apart for name in names))
