# SPDX-License-Identifier: Apache-2.0
"""One training process, for tests that need several of them, or devices of its own: python worker.py REQUEST.json.

The request: {"config": fields of TrainConfig, "form": fields of Form, "cpus": logical devices, "stop_at": step}. It
prints one JSON line: the result, or the error. stop_at presses Ctrl-C, or with "kill" ends the process at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import tensorflow as tf

from bnngen.errors import BnngenError
from bnngen.train.config import Form, TrainConfig
from bnngen.train.trainer import train


def main(request: dict) -> dict:
    """Train as the request says; return what to print."""
    if request.get("cpus"):
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * request["cpus"])
    paths = {key: Path(value) for key, value in request["config"].items() if key in ("out", "init", "teacher")}
    config = TrainConfig(**request["config"] | paths, form=Form(**request.get("form", {})))

    def progress(what: str, done: int, total: int) -> None:
        if done == request.get("stop_at"):
            os.kill(os.getpid(), signal.SIGKILL if request.get("kill") else signal.SIGINT)

    try:
        result = train(config, progress)
    except BnngenError as error:
        return {"error": type(error).__name__, "message": error.message, "why": error.why, "fix": error.fix}
    return {"chief": result.chief, "test_accuracy": result.test_accuracy, "best_epoch": result.best_epoch}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), flush=True)
