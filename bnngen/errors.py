# SPDX-License-Identifier: Apache-2.0
"""Errors a user can act on: what happened, where, why, and what to do about it.

One tree. The package `cli/` prints the four fields and exits with `exit_code`; nothing else in bnngen
prints. A defect of bnngen itself is an ordinary Python exception with a traceback: those are not ours
to dress up.
"""

from __future__ import annotations


class BnngenError(Exception):
    """A mistake of the input, the environment or the request, explained.

    message: one sentence, what is wrong.
    where:   the layer, file, option or step it was found in.
    why:     the rule that it breaks, when that is not obvious.
    fix:     what the user can do now.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.why = why
        self.fix = fix

    def lines(self) -> list[tuple[str, str]]:
        """Return the labelled lines below the message, in print order, without empty ones."""
        fields = (("where", self.where), ("why", self.why), ("fix", self.fix))
        return [(label, text) for label, text in fields if text]

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {label:<6} {text}" for label, text in self.lines())])


class UsageError(BnngenError):
    """The command line itself is wrong: an unknown name, a missing file."""

    exit_code = 2


class DataError(BnngenError):
    """Images, labels or a calibration sample that do not fit."""


class ModelError(BnngenError):
    """A model that cannot be read, or a layer that is not supported."""


class BudgetError(BnngenError):
    """The program does not fit the target's memory."""


class TargetError(BnngenError):
    """A target description that is wrong, or a target that does not exist."""


class ToolError(BnngenError):
    """A compiler, emulator or flashing tool is missing or has failed."""


class TrainingInterrupted(BnngenError):
    """Training was stopped by the user; what was reached is on disk and can be resumed."""

    exit_code = 130
