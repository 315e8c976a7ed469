# SPDX-License-Identifier: Apache-2.0
"""The study behind docs/studies/tail.md: what a trainable tail of binary blocks needs, in NumPy float32.

A backbone's front is frozen and computed once (`cut`); what lies behind it, n blocks x + BN(relu(conv(sign x))) with
ReLU, pool and a linear head without bias, learns a stream of new classes with CWR* and replay. One line per setting:
mean accuracy over all streamed classes on held-out training images, one figure a seed, share of kernels flipped.

    python docs/studies/tail_float.py cut MODEL.keras cifar100.npz CUT.npz
    python docs/studies/tail_float.py run CUT.npz STUDY [--seeds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tail_latents import STREAMED, Array, cut, levels, packed

EPSILON = 1e-5


@dataclass(frozen=True)
class Setting:
    """One row. Rates are in real units; what the words mean is said where they are used."""

    blocks: int = 1
    latent: str = "sign"
    inference: str = "real"
    new: str = "packed"
    memory: int = 300
    buffer: int = 500
    experiences: int = 5
    batch: int = 64
    epochs: int = 6
    head_lr: float = 0.1
    rule: str = "mean"
    tail_lr: float = 0.0002
    affine_lr: float = 0.03
    store: str = "float"
    ste: str = "clip"
    train: str = "latent+affine"
    norm: str = "frozen"
    start: str = "trained"
    first: str = "train"
    decay: bool = True
    head: str = "cwr"
    mirror: bool = False  # half of the drawn maps, left to right
    noise: float = 0.0  # share of a drawn map's entries that change sign


# --- the tail --------------------------------------------------------------------------------------------------------


def columns(x: Array) -> Array:
    """Signs of maps [B, H, W, C], padded with +1, as rows of 3x3 patches [B*H*W, 9*C]."""
    b, h, w, c = x.shape
    bits = np.ones((b, h + 2, w + 2, c), np.float32)
    np.copysign(1, x + 0.0, out=bits[:, 1:-1, 1:-1])  # + 0.0: sign(-0) = +1
    patches = np.lib.stride_tricks.sliding_window_view(bits, (3, 3), axis=(1, 2))
    return np.ascontiguousarray(patches.transpose(0, 1, 2, 4, 5, 3)).reshape(b * h * w, 9 * c)


def folded_back(d: Array, shape: tuple[int, ...]) -> Array:
    """Gradient at `columns` [B*H*W, 9*C] -> gradient at the signs [B, H, W, C]."""
    b, h, w, c = shape
    out, d = np.zeros((b, h + 2, w + 2, c), np.float32), d.reshape(b, h, w, 3, 3, c)
    for i in range(3):
        for j in range(3):
            out[:, i:i + h, j:j + w] += d[:, :, :, i, j]
    return out[:, 1:-1, 1:-1]


class Block:
    """x + gamma * (relu(conv(sign x, sign latent)) - mean) / sigma + beta."""

    def __init__(self, kernel: Array, bn: tuple[Array, ...], setting: Setting, rng: np.random.Generator) -> None:
        self.s, self.rng = setting, rng
        word, _, constant = setting.start.partition(":")
        start = kernel if word == "trained" else np.where(kernel >= 0, 1, -1) * float(constant)
        self.latent = self._stored(np.clip(start, -1, 1).astype(np.float32))
        self.gamma, self.beta, self.mean, self.var = (v.astype(np.float32).copy() for v in bn)
        self.first = self.latent >= 0
        self.m = self.v = None
        self.steps = 0

    def forward(self, x: Array, training: bool) -> Array:
        """x: [B, H, W, C]."""
        self.x, self.cols = x, columns(x)
        self.kernel = np.where(self.latent >= 0, np.float32(1), np.float32(-1))
        y = np.maximum(self.cols @ self.kernel, 0)
        mean, var = self.mean, self.var
        if training and self.s.norm == "batch":
            mean, var = y.mean(axis=0), y.var(axis=0)
            self.mean, self.var = 0.9 * self.mean + 0.1 * mean, 0.9 * self.var + 0.1 * var
        self.sigma = np.sqrt(var + EPSILON)
        self.alive, self.hat = y > 0, (y - mean) / self.sigma
        return x + (self.gamma * self.hat + self.beta).reshape(x.shape)

    def backward(self, g: Array, lower: bool) -> Array | None:
        """g: [B, H, W, C], gradient at the output; lower: whether the gradient at the input is wanted."""
        flat = g.reshape(-1, g.shape[-1])
        self.d_gamma, self.d_beta = (flat * self.hat).sum(axis=0), flat.sum(axis=0)
        if self.s.norm == "batch":
            flat = flat - flat.mean(axis=0) - self.hat * (self.d_gamma / len(flat))
        d = flat * (self.gamma / self.sigma) * self.alive
        self.d_latent = self.cols.T @ d
        if not lower:
            return None
        ste = np.abs(self.x) <= 1
        if self.s.ste == "approximate":
            ste = ste * (2 - 2 * np.abs(self.x))
        return g + folded_back(d @ self.kernel.T, g.shape) * ste

    def update(self, decay: float) -> None:
        """One step of what is trained."""
        if "affine" in self.s.train:
            self.gamma -= self.s.affine_lr * decay * self.d_gamma
            self.beta -= self.s.affine_lr * decay * self.d_beta
        if "latent" in self.s.train:
            step = self.s.tail_lr * decay * self._direction(self.d_latent)
            self.latent = self._stored(np.clip(self.latent - step, -1, 1))

    def _direction(self, d: Array) -> Array:
        """sgd: the gradient. mean, max: per layer over its mean or largest magnitude. sign. adam."""
        rule = self.s.rule
        if rule == "sgd":
            return d
        if rule in ("mean", "max"):
            size = np.abs(d).mean() if rule == "mean" else np.abs(d).max()
            return d / (size + np.float32(1e-20))
        if rule == "sign":
            return np.sign(d)
        self.steps += 1
        self.m = (0 if self.m is None else 0.9 * self.m) + 0.1 * d
        self.v = (0 if self.v is None else 0.999 * self.v) + 0.001 * d * d
        return self.m / (1 - 0.9**self.steps) / (np.sqrt(self.v / (1 - 0.999**self.steps)) + 1e-12)

    def _stored(self, latent: Array) -> Array:
        """float; or N bits to the nearest; Nr: with stochastic rounding."""
        if self.s.store == "float":
            return latent
        top = np.float32(2 ** (int(self.s.store.rstrip("r")) - 1) - 1)
        noise = self.rng.random(latent.shape, np.float32) if self.s.store.endswith("r") else np.float32(0.5)
        return np.clip(np.floor(latent * top + noise), -top, top) / top


# --- the learner -----------------------------------------------------------------------------------------------------


class Learner:
    """CWR* (docs/numerics.md, 5.7) over a tail, with a class-balanced memory of what the cut gives."""

    def __init__(self, data: dict[str, Array], setting: Setting, seed: int) -> None:
        self.s, self.rng = setting, np.random.default_rng(seed)
        depth = setting.blocks
        names = [f"{{}}{d}" for d in range(depth, 0, -1)]
        self.blocks = [Block(data[n.format("kernel")], tuple(data[n.format(k)] for k in "gbmv"), setting, self.rng)
                       for n in names]
        self.how = levels(data[f"x{depth}_cal"], setting.latent)
        channels = data["x0_fit"].shape[-1]
        self.cw, self.past = np.zeros((len(STREAMED), channels), np.float32), np.zeros(len(STREAMED))
        self.memory = np.zeros((0, *data[f"x{depth}_fit"].shape[1:]), np.float32), np.zeros(0, np.int64)
        self.done = 0

    def features(self, x: Array, training: bool = False) -> Array:
        """[B, H, W, C] -> [B, C]."""
        for block in self.blocks:
            x = block.forward(x, training)
        self.top = x
        return np.maximum(x, 0).mean(axis=(1, 2))

    def learn(self, x: Array, y: Array) -> None:
        """One experience: maps [N, H, W, C] and labels [N]."""
        keep = self.rng.permutation(len(y))[: self.s.buffer]
        x, y = x[keep], y[keep]
        latents = packed(x, self.how)
        x = latents if self.s.new == "packed" else x
        cur = np.bincount(np.concatenate([y, self.memory[1]]), minlength=len(self.cw))
        self.tw = np.where(cur[:, None] > 0, self.cw, 0)
        batches = list(self._batches(y))
        for k, (new, old) in enumerate(batches):
            self._step(np.concatenate([x[new], self.memory[0][old]]), np.concatenate([y[new], self.memory[1][old]]),
                       1 - k / len(batches) if self.s.decay else 1.0)
        self._consolidate(cur)
        self._remember(latents, y)
        self.done += 1

    def _batches(self, y: Array) -> Iterator[tuple[Array, Array]]:
        old, kinds = len(self.memory[1]), len(np.unique(y))
        share = kinds / (kinds + len(np.unique(self.memory[1])))
        fresh = max(1, round(self.s.batch * share)) if old else self.s.batch
        for _ in range(self.s.epochs):
            order = self.rng.permutation(len(y))
            for at in range(0, len(y), fresh):
                drawn = self.rng.integers(0, max(old, 1), self.s.batch - fresh)
                yield order[np.arange(at, at + fresh) % len(y)], drawn

    def _step(self, x: Array, y: Array, decay: float) -> None:
        if self.s.mirror:
            turned = self.rng.random(len(y)) < 0.5
            x[turned] = x[turned, :, ::-1]
        if self.s.noise:
            x = np.where(self.rng.random(x.shape, np.float32) < self.s.noise, -x, x)
        frozen = self.s.train == "none" or (self.s.first == "freeze" and not self.done)
        f = self.features(x, training=not frozen)
        g = f @ self.tw.T
        g = np.exp(g - g.max(axis=1, keepdims=True))
        g /= g.sum(axis=1, keepdims=True)
        g[np.arange(len(y)), y] -= 1
        g = (g / len(y)).astype(np.float32)
        df = g @ self.tw
        self.tw = self.tw - np.float32(self.s.head_lr) * (g.T @ f)
        if frozen:
            return
        area = self.top.shape[1] * self.top.shape[2]
        g = (df[:, None, None] / area) * (self.top > 0)
        for block in self.blocks[::-1]:
            g = block.backward(g, block is not self.blocks[0])
        for block in self.blocks:
            block.update(decay)

    def _consolidate(self, cur: Array) -> None:
        present = cur > 0
        if self.s.head == "plain":
            self.cw = np.where(present[:, None], self.tw, self.cw)
        else:
            weight = np.sqrt(self.past / np.maximum(cur, 1))[:, None] if self.s.head == "cwr" else 0.0
            merged = (weight * self.cw + self.tw - self.tw[present].mean()) / (weight + 1)
            self.cw = np.where(present[:, None], merged, self.cw).astype(np.float32)
        self.past = self.past + cur

    def _remember(self, x: Array, y: Array) -> None:
        x, y = np.concatenate([self.memory[0], x]), np.concatenate([self.memory[1], y])
        share, rest = divmod(self.s.memory, len(np.unique(y)))
        kept = [self.rng.permutation(np.flatnonzero(y == c))[: share + (rank < rest)]
                for rank, c in enumerate(np.unique(y))]
        rows = np.concatenate(kept)
        self.memory = x[rows], y[rows]

    def accuracy(self, x: Array, y: Array) -> float:
        """Of the consolidated head over all classes."""
        x = packed(x, self.how) if self.s.inference == "packed" else x
        scores = np.concatenate([self.features(x[i:i + 250]) @ self.cw.T for i in range(0, len(x), 250)])
        return float((np.where(self.past > 0, scores, -np.inf).argmax(axis=1) == y).mean())

    def flipped(self) -> float:
        """Share of the kernels' signs that are not those of the pre-training."""
        return float(np.mean([(b.first != (b.latent >= 0)).mean() for b in self.blocks] or [0]))


def run(data: dict[str, Array], setting: Setting, seed: int) -> tuple[float, float]:
    """Return accuracy after the stream and share of flipped kernels."""
    order = np.random.default_rng(1000 + seed).permutation(len(STREAMED))
    learner, depth = Learner(data, setting, seed), setting.blocks
    for classes in np.array_split(order, setting.experiences):
        rows = np.flatnonzero(np.isin(data["y_fit"], classes))
        learner.learn(data[f"x{depth}_fit"][rows], data["y_fit"][rows])
    return learner.accuracy(data[f"x{depth}_val"], data["y_val"]), learner.flipped()


# --- the studies -----------------------------------------------------------------------------------------------------

HEAD, ALL = {"train": "none"}, {"experiences": 1, "buffer": 8000, "latent": "float"}
LEVELS = ("float", "sign", "alpha", "shared", "mean", "lloyd", "2bit", "4bit")
LOW, NOISY = {"train": "latent"}, {"noise": 0.1, "tail_lr": 5e-4}
STUDIES: dict[str, list[dict[str, object]]] = {
    "latents": [HEAD | {"blocks": n, "latent": k, "memory": m}
                for m in (300, 1000) for n, kinds in ((0, ("float", "mean")), (1, LEVELS), (2, LEVELS)) for k in kinds],
    "inference": [HEAD | {"blocks": n, "inference": "packed", "memory": m} for m in (300, 1000) for n in (1, 2)],
    "rules": [LOW | {"rule": rule, "tail_lr": lr} for rule, rates in (
        ("sgd", (1, 3, 10)), ("mean", (3e-4, 1e-3, 3e-3, 6e-3)), ("max", (0.01, 0.03)), ("sign", (5e-4, 1e-3, 3e-3)),
        ("adam", (3e-4, 1e-3, 3e-3))) for lr in rates]
    + [{"train": "affine", "affine_lr": lr} for lr in (0.01, 0.1)],
    "together": [ALL | HEAD | {"blocks": 0, "epochs": 20}, ALL | {"tail_lr": 0.001},
                 ALL | {"tail_lr": 0.001, "blocks": 2}],
    "tail": [{}, {"latent": "float"}, {"norm": "batch"}, {"memory": 1000}, {"blocks": 2},
             {"blocks": 2, "ste": "approximate"}, {"first": "freeze"}, {"noise": 0.1}, {"mirror": True},
             NOISY, NOISY | {"store": "8r"}, NOISY | {"store": "8r", "memory": 1000}],
    "storage": [{"store": "8r"}, {"store": "16"}, {"store": "8", "tail_lr": 5e-4},
                {"start": "const:0.05", "tail_lr": 5e-4}],
}


def _at_head(data: dict[str, Array], setting: Setting) -> tuple[dict[str, Array], Setting]:
    """A frozen tail is run once: what it makes of the packed maps takes the place of the pooled features."""
    learner, depth = Learner(data, setting, 0), setting.blocks

    def features(part: str, how: tuple[Array, Array] | None) -> Array:
        x = data[f"x{depth}_{part}"]
        rows = [learner.features(packed(x[i:i + 250], how)) for i in range(0, len(x), 250)]
        return np.concatenate(rows)[:, None, None]

    how = learner.how if setting.inference == "packed" else None
    replaced = {"x0_fit": features("fit", learner.how), "x0_val": features("val", how)}
    return data | replaced, replace(setting, blocks=0, latent="float", inference="real")


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("cut")
    for name in ("model", "data", "out"):
        first.add_argument(name)
    second = commands.add_parser("run")
    second.add_argument("cut")
    second.add_argument("study", choices=STUDIES)
    second.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    if given.command == "cut":
        cut(given.model, given.data, given.out)
        return
    data = {k: v[:, None, None] if k.startswith("x0_") else v for k, v in np.load(Path(given.cut)).items()}
    for options in STUDIES[given.study]:
        setting, start = replace(Setting(), **options), time.perf_counter()
        used, how = _at_head(data, setting) if setting.train == "none" and setting.blocks else (data, setting)
        results = np.array([run(used, how, seed) for seed in range(given.seeds)])
        right, flipped = 100 * results[:, 0], 100 * results[:, 1].mean()
        words = " ".join(f"{k}={v}" for k, v in options.items()) or "default"
        print(f"{right.mean():.2f}  [{' '.join(f'{r:.1f}' for r in right)}]  flipped {flipped:.1f} %  {words}  "
              f"({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
