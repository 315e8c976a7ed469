# SPDX-License-Identifier: Apache-2.0
"""A byte stream to a running program: a pipe to a process, a Unix socket, or a serial line.

All are file descriptors underneath, so one class does the reading, the writing and the deadlines.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import serial

from bnngen.device.toolchain import last_lines, ssh_advice
from bnngen.errors import ToolError

CONNECT_TIMEOUT_S = 15
END_TIMEOUT_S = 3
CHUNK_BYTES = 65536


class DeviceError(ToolError):
    """The program on the device, or the line to it, has failed."""


class DeviceSilent(DeviceError):
    """Nothing came within the time limit."""


class Process:
    """A program that is at the other end of a stream, with its complaints kept for error messages."""

    def __init__(self, argv: Sequence[str], *, pipes: bool) -> None:
        self.argv = list(argv)
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        stream = subprocess.PIPE if pipes else subprocess.DEVNULL
        try:
            self.popen = subprocess.Popen(self.argv, bufsize=0, stdin=stream, stdout=stream,
                                          stderr=self.complaints)
        except OSError as error:
            self.complaints.close()
            foreign = error.errno == errno.ENOEXEC
            raise DeviceError(
                f"{Path(argv[0]).name} could not be started: {error.strerror}", where=argv[0],
                why="it is a program for another processor" if foreign else "",
                fix="leave --on out: it then runs in its emulator" if foreign else "bnngen build makes it",
            ) from error

    def explain(self) -> str:
        """Say how the process ended, with the last of its error output."""
        try:
            status = self.popen.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "the program is still running"
        self.complaints.seek(0)
        said = last_lines(self.complaints.read().decode("utf-8", "replace"), 8)
        how = f"it ended with status {status}"
        if status < 0:
            how = f"it was ended by {signal.Signals(-status).name}"
        if "Lockup" in said:
            how = "the processor locked up: most often a stack that grew out of its memory"
        return f"{how}: {said}" if said else how

    def end(self) -> None:
        """End the process, politely first."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.complaints.close()


class Transport:
    """One stream. Reads and writes keep a deadline in seconds of time.monotonic()."""

    def __init__(self, name: str, fds: tuple[int, int], owners: Sequence[Any],
                 process: Process | None = None) -> None:
        self.name = name
        self.process = process
        self.holds_back = False  # True: what is written waits until it is read; a UART drops it
        self._read_fd, self._write_fd = fds
        self._owners = list(owners)
        self._pending = b""
        for fd in fds:
            os.set_blocking(fd, False)

    def own(self, closeable: Any) -> None:
        """Close `closeable` together with the stream."""
        self._owners.append(closeable)

    def _wait(self, fd: int, deadline: float, writing: bool) -> None:
        left = deadline - time.monotonic()
        ready = select.select([] if writing else [fd], [fd] if writing else [], [], max(left, 0))
        if not any(ready):
            raise DeviceSilent("the device does not answer", where=self.name,
                               why="nothing moved on the line within the time limit",
                               fix="check the connection, and that this program was flashed; reset the board")

    def _gone(self) -> DeviceError:
        why = self.process.explain() if self.process else "the line was closed"
        fix = ssh_advice(why) if self.name.startswith("ssh ") else ""
        return DeviceError("the program on the device has ended", where=self.name, why=why,
                           fix=fix or "run it again; build with --kernels ref if it ends again")

    def write(self, data: bytes, deadline: float) -> None:
        """Write everything. DeviceError: the other end is gone, or takes nothing until the deadline."""
        view = memoryview(data)
        while view:
            self._wait(self._write_fd, deadline, writing=True)
            try:
                view = view[os.write(self._write_fd, view[:CHUNK_BYTES]):]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone() from error

    def read(self, count: int, deadline: float) -> bytes:
        """Return exactly `count` bytes. DeviceError: the stream ended, or the deadline passed."""
        while len(self._pending) < count:
            self._wait(self._read_fd, deadline, writing=False)
            try:
                data = os.read(self._read_fd, CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self._pending += data
        result, self._pending = self._pending[:count], self._pending[count:]
        return result

    def close(self) -> None:
        """Close the stream and end the process behind it. Safe to call twice."""
        for owner in self._owners:
            owner.close()
        self._owners = []
        if self.process:
            self.process.end()
            self.process = None


def open_pipe(argv: Sequence[str], name: str) -> Transport:
    """Start a program and talk to its standard input and output."""
    process = Process(argv, pipes=True)
    stdin, stdout = process.popen.stdin, process.popen.stdout
    transport = Transport(name, (stdout.fileno(), stdin.fileno()), (stdin, stdout), process)
    transport.holds_back = True
    return transport


def open_socket(path: Path, name: str, process: Process | None = None) -> Transport:
    """Connect with a Unix socket that `process` is about to open."""
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        try:
            line.connect(str(path))
            return Transport(name, (line.fileno(), line.fileno()), (line,), process)
        except OSError as error:
            ended = process is not None and process.popen.poll() is not None
            if ended or time.monotonic() > deadline:
                line.close()
                why = process.explain() if process else str(error)
                if process:
                    process.end()
                raise DeviceError("the emulator did not open its line", where=name, why=why) from error
            time.sleep(0.02)


def open_serial(port: str, baud: int) -> Transport:
    """Open a serial line to a board. DeviceError: there is no such line, or it may not be opened."""
    try:
        line = serial.Serial(port, baud, timeout=0, exclusive=True)
    except (serial.SerialException, ValueError) as error:
        raise DeviceError(f"the serial line {port} cannot be opened", where=port, why=str(error),
                          fix="name the board's line with --port; be in the group dialout") from error
    line.reset_input_buffer()
    return Transport(f"{port} at {baud} baud", (line.fileno(), line.fileno()), (line,))
