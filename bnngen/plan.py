# SPDX-License-Identifier: Apache-2.0
"""Plan: every buffer gets an offset in one static arena; `check_plan` proves that nothing is overwritten too early.

Time is a list of steps: inference (front, pack, tail, scores), then one learning step (unpack, tail, head). A buffer
is alive at a set of steps. Learning memory that persists is alive at all of them; memory of one learning step only
at those and at pack, whose output it holds, so it may lie over what only the front and the scores need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from bnngen.lower.program import INFERENCE, KernelCall, Program

ALIGN = 8  # BNN_ALIGN
PERSISTENT, LEARN_STEP = "persistent", "learn_step"
LEARN_PREFIX = "learn/"  # keeps learning buffers apart from layers of the same name


class PlanError(Exception):
    """A plan in which buffers collide: a defect of the planner, never of the user's model."""


class LearnBuffer(NamedTuple):
    """Memory that learning asks for (lower/learning.py). kind: "persistent" keeps its contents; "learn_step" has
    none outside one learning step, one added sample or one scored image."""

    name: str
    bytes: int
    align: int = ALIGN
    kind: str = PERSISTENT


@dataclass(frozen=True)
class Step:
    """A moment in time: a kernel call of a segment, or the update of the learned head (call None)."""

    title: str
    segment: str
    call: KernelCall | None


@dataclass(frozen=True)
class Placed:
    """A buffer with its offset in the arena. kind: "activation", "scratch", "persistent" or "learn_step"."""

    name: str
    bytes: int
    align: int
    kind: str
    steps: frozenset[int]
    offset: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.bytes


@dataclass(frozen=True)
class Plan:
    """Offsets of all buffers. Bytes alive at `peak_step` are the most of any step; the arena may be larger."""

    timeline: tuple[Step, ...]
    buffers: tuple[Placed, ...]
    arena_bytes: int
    inference_peak_bytes: int
    peak_step: int

    def buffer(self, name: str) -> Placed:
        """Return the buffer of that name."""
        return next(buffer for buffer in self.buffers if buffer.name == name)

    def offset(self, name: str) -> int:
        """Return the offset of a buffer in the arena, in bytes."""
        return self.buffer(name).offset

    def learn_offsets(self) -> dict[str, int]:
        """Return the offsets of the learning buffers by the name that learning gave them."""
        kinds = (PERSISTENT, LEARN_STEP)
        return {b.name.removeprefix(LEARN_PREFIX): b.offset for b in self.buffers if b.kind in kinds}

    def alive(self, step: int) -> list[Placed]:
        """Return the buffers that are alive at a step, by offset."""
        return sorted((b for b in self.buffers if step in b.steps), key=lambda b: (b.offset, b.name))

    def to_text(self) -> str:
        """Draw the plan: the buffers, and who lies where at each step (plan.txt)."""
        return _picture(self)


def make_plan(
    program: Program, extra: Sequence[LearnBuffer | tuple[str, int, int, str]] = (), trained_tail: bool = False
) -> Plan:
    """Place the program's buffers and the learning buffers; the result has passed `check_plan`.

    trained_tail: learning has code and memory of its own for what follows the cut, and calls neither unpack nor tail.
    """
    timeline = make_timeline(program, trained_tail)
    buffers = [
        *_program_buffers(program, timeline),
        *_learn_buffers([LearnBuffer(*e) for e in extra], timeline),
    ]
    placed = min((_place(buffers, order) for order in _orders()), key=lambda p: max((b.end for b in p), default=0))
    arena = _round_up(max((b.end for b in placed), default=0), ALIGN)
    alive = [sum(b.bytes for b in placed if step in b.steps) for step in range(len(timeline))]
    inference = [b for b in placed if b.kind in ("activation", "scratch")]
    steps = [i for i, step in enumerate(timeline) if step.segment in (*INFERENCE, "pack")]
    peak = max((sum(b.bytes for b in inference if step in b.steps) for step in steps), default=0)
    plan = Plan(timeline, tuple(placed), arena, peak, alive.index(max(alive)))
    check_plan(program, plan)
    return plan


def make_timeline(program: Program, trained_tail: bool = False) -> tuple[Step, ...]:
    """Inference in order, then one learning step. The learned scores read the features at "head" as well; behind a
    trained tail they read the cut tensor there, which is alive at all learning steps."""
    steps = []
    for segment in ("front", "pack", "tail", "scores"):
        steps += [Step(call.layer, segment, call) for call in program.segments[segment]]
    for segment in () if trained_tail else ("unpack", "tail"):
        steps += [Step(f"learn: {call.layer}", "learn", call) for call in program.segments[segment]]
    return (*steps, Step("learn: tail and head" if trained_tail else "learn: head", "learn", None))


def _program_buffers(program: Program, timeline: Sequence[Step]) -> list[Placed]:
    """Buffers of tensors and of scratch. A tensor lives from the write to its last read, in each pass anew."""
    passes = [[i for i, step in enumerate(timeline) if (step.segment == "learn") == learn] for learn in (False, True)]
    steps: dict[str, set[int]] = {}
    sizes: dict[str, int] = {}
    for value in program.values.values():
        sizes[value.buffer] = max(sizes.get(value.buffer, 0), value.bytes)
        alive = steps.setdefault(value.buffer, set())
        for indices in passes:
            alive |= _lifetime(program, timeline, indices, value.name)
    buffers = [Placed(name, sizes[name], ALIGN, "activation", frozenset(alive)) for name, alive in steps.items()]
    for call in program.calls():
        if call.scratch is not None:
            used = frozenset(i for i, step in enumerate(timeline) if step.call is call)
            buffers.append(Placed(call.scratch, call.scratch_bytes, ALIGN, "scratch", used))
    return buffers


def _lifetime(program: Program, timeline: Sequence[Step], indices: Sequence[int], tensor: str) -> set[int]:
    """Steps of one pass from the first that writes or reads the tensor to the last that does."""
    touched = [i for i in indices if (call := timeline[i].call) and (call.write == tensor or tensor in call.reads)]
    if touched and tensor == program.features:
        touched.append(indices[-1])  # bnn_<m>_features() and the learned head read it at the end
    elif not touched and tensor in (program.features, program.cut) and timeline[indices[0]].segment == "learn":
        touched = list(indices)  # a head without latents reads the features that inference left
    return set(range(min(touched), max(touched) + 1)) if touched else set()


def _learn_buffers(extra: Sequence[LearnBuffer], timeline: Sequence[Step]) -> list[Placed]:
    learning = frozenset(i for i, step in enumerate(timeline) if step.segment in ("learn", "pack"))
    when = {PERSISTENT: frozenset(range(len(timeline))), LEARN_STEP: learning}
    return [Placed(LEARN_PREFIX + b.name, b.bytes, max(b.align, ALIGN), b.kind, when[b.kind]) for b in extra]


def _orders() -> Iterable:
    """Orders in which to place buffers; the best result of them is taken."""
    return (
        lambda b: (-b.bytes, b.name),
        lambda b: (-len(b.steps), -b.bytes, b.name),
        lambda b: (-len(b.steps) * b.bytes, b.name),
        lambda b: (min(b.steps, default=0), -b.bytes, b.name),
    )


def _place(buffers: Sequence[Placed], order: object) -> list[Placed]:
    """Greedy: each buffer in turn at the lowest offset that is free during all of its steps."""
    done: list[Placed] = []
    for buffer in sorted(buffers, key=order):
        offset = 0
        for other in sorted((o for o in done if o.steps & buffer.steps), key=lambda o: o.offset):
            if other.offset >= offset + buffer.bytes:
                break
            offset = max(offset, _round_up(other.end, buffer.align))
        done.append(Placed(buffer.name, buffer.bytes, buffer.align, buffer.kind, buffer.steps, offset))
    return done


def _round_up(value: int, align: int) -> int:
    return -(-value // align) * align


# ----------------------------------------------------------------------------------------- checker


def check_plan(program: Program, plan: Plan) -> None:
    """Raise PlanError unless the plan is sound. Quadratic and obvious on purpose; shares no code with the planner.

    Two proofs. Buffers alive at the same step never share a byte. And a run in which each write destroys
    whatever lay on its bytes always finds the tensor that it reads.
    """
    for buffer in plan.buffers:
        if buffer.offset % buffer.align or buffer.offset < 0 or buffer.offset + buffer.bytes > plan.arena_bytes:
            raise PlanError(f"{buffer.name} is misaligned or outside the arena")
    for a, b in combinations(plan.buffers, 2):
        if a.steps & b.steps and a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes:
            raise PlanError(f"{a.name} and {b.name} share bytes while both are alive")
    s = program.segments
    keep = [b for b in plan.buffers if b.kind == PERSISTENT]
    _run(program, plan, [*s["front"], *s["pack"], *s["tail"], *s["scores"]], keep)
    if program.cut is not None and not any(step.segment == "learn" and step.call for step in plan.timeline):
        _check_trained_tail(program, plan)
    elif program.cut is not None:
        step = [b for b in plan.buffers if b.kind == LEARN_STEP]
        _run(program, plan, [*s["unpack"], *s["tail"]], keep + step)


def _check_trained_tail(program: Program, plan: Plan) -> None:
    """The tail reads the cut tensor where front left it, and writes its own buffers: none of them may touch it, and
    front's other tensors are dead by then. What pack writes, memory of a step, must not be what front still reads."""
    cut = next(b for b in plan.buffers if b.name == program.values[program.cut].buffer)
    for b in plan.buffers:
        if b.kind in (PERSISTENT, LEARN_STEP) and b.offset < cut.end and cut.offset < b.end:
            raise PlanError(f"{b.name} lies over the tensor at the cut")


def _run(program: Program, plan: Plan, calls: Sequence[KernelCall], keep: Sequence[Placed]) -> None:
    """Execute `calls` on a map of tensors to byte ranges."""
    where = {b.name: (b.offset, b.offset + b.bytes) for b in plan.buffers}
    intact: dict[str, tuple[int, int]] = {}
    for call in calls:
        for name in call.reads:
            if name not in intact and name not in ("image", "latent"):
                raise PlanError(f"{call.layer} reads {name}, which is overwritten or was never written")
        start, end = 0, 0
        if call.write in program.values:
            start, end = where[program.values[call.write].buffer]
        touched = [(call.write, start, end)]
        if call.scratch is not None:
            touched.append((call.scratch, *where[call.scratch]))
        for name, lo, hi in touched:
            for other in [t for t in call.reads if t in intact]:
                same_place = call.in_place and intact[other] == (lo, hi) and name == call.write
                if lo < intact[other][1] and intact[other][0] < hi and not same_place:
                    raise PlanError(f"{call.layer} writes {name} over its own input {other}")
            if any(lo < b.offset + b.bytes and b.offset < hi for b in keep):
                raise PlanError(f"{call.layer} writes {name} over learning memory")
            intact = {t: (x, y) for t, (x, y) in intact.items() if not (lo < y and x < hi)}
        if call.write in program.values:
            intact[call.write] = (start, end)
    if program.features not in intact:
        raise PlanError("the features do not survive until the end")


# ----------------------------------------------------------------------------------------- picture

COLUMNS = 64


def _picture(plan: Plan) -> str:
    peak = plan.timeline[plan.peak_step].title
    lines = [
        f"arena {plan.arena_bytes} bytes; inference alone needs {plan.inference_peak_bytes}",
        f"most bytes are alive at step {plan.peak_step} ({peak}):",
        *(f"  {b.offset:>8} .. {b.end:>8}  {b.bytes:>8}  {b.kind:<10}  {b.name}" for b in plan.alive(plan.peak_step)),
        "",
        "buffers",
        *(
            f"  {b.offset:>8} .. {b.end:>8}  {b.bytes:>8}  {b.kind:<10}  {b.name}, steps {_span(b.steps)}"
            for b in sorted(plan.buffers, key=lambda b: (b.offset, b.bytes, b.name))
        ),
        "",
        f"steps; a column is {-(-plan.arena_bytes // COLUMNS)} bytes",
    ]
    width = max(len(step.title) for step in plan.timeline)
    for index, step in enumerate(plan.timeline):
        lines.append(f"  {index:>3} {step.segment:<6} {step.title:<{width}} |{_bar(plan, index)}|")
    lines.append("  A activation, s scratch, P persistent learning memory, L memory of a learning step")
    return "\n".join([*lines, ""])


def _bar(plan: Plan, step: int) -> str:
    cells = [" "] * COLUMNS
    letter = {"activation": "A", "scratch": "s", PERSISTENT: "P", LEARN_STEP: "L"}
    unit = max(1, -(-plan.arena_bytes // COLUMNS))
    for buffer in plan.alive(step):
        for cell in range(buffer.offset // unit, -(-buffer.end // unit)):
            cells[cell] = letter[buffer.kind]
    return "".join(cells)


def _span(steps: frozenset[int]) -> str:
    ordered, spans = sorted(steps), []
    for step in ordered:
        if spans and spans[-1][1] == step - 1:
            spans[-1][1] = step
        else:
            spans.append([step, step])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
