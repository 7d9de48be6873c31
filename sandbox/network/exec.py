"""Executes a CNI plugin binary: environment and JSON in, JSON or an error out (CNI SPEC.md section 2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.errors import NetworkError
from sandbox.network.versions import DECODING_FAILURE

MAX_STDOUT_BYTES = 1 << 20
MAX_STDERR_BYTES = 64 << 10
_DRAIN_S = 1.0
IO_FAILURE = 5

_CODES = {
    1: "incompatible CNI version",
    2: "unsupported field in the configuration",
    3: "container unknown or does not exist",
    4: "invalid environment variable",
    5: "input or output failure",
    6: "content could not be decoded",
    7: "invalid network configuration",
    11: "try again later",
    50: "the plugin is not available",
    51: "the plugin is not available and containers of its network may have limited connectivity",
}


def describe_code(code: int) -> str:
    """The specification's meaning of an error code."""
    return _CODES.get(code, f"plugin error {code}" if code >= 100 else f"error {code}")


def find_plugin(type: str, directories: Sequence[Path]) -> Path:
    """The first executable file of that name. Raises NetworkError saying where it was looked for."""
    for directory in directories:
        path = directory / type
        if path.is_file() and os.access(path, os.X_OK):
            return path
    places = ":".join(str(directory) for directory in directories)
    raise NetworkError(
        f"CNI plugin {type} is not in {places}",
        code=IO_FAILURE,
        operation="find a CNI plugin",
        subject=type,
        hint="install it (Debian: containernetworking-plugins), or set the plugin directories",
    )


async def run_plugin(path: Path, environment: Mapping[str, str], config: bytes, timeout_s: float) -> Any:
    """The decoded output; None when it printed nothing. The whole process group dies at the time-out.

    Raises NetworkError with the plugin's code, its message and, where it crashed, its last words.
    """
    command = environment.get("CNI_COMMAND", "")
    subject = path.name
    async with contextlib.AsyncExitStack() as stack:
        # Pipes of our own: asyncio's Process.wait() would also wait for a child that holds its pipes open.
        out, out_fd = await _pipe(stack, MAX_STDOUT_BYTES)
        err, err_fd = await _pipe(stack, MAX_STDERR_BYTES)
        try:
            process = await asyncio.create_subprocess_exec(
                str(path),
                stdin=asyncio.subprocess.PIPE,
                stdout=out_fd,
                stderr=err_fd,
                env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), **environment},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise _failure(f"CNI plugin {path} cannot be executed: {reason}", IO_FAILURE, command, subject) from error
        finally:
            os.close(out_fd)
            os.close(err_fd)
        try:
            async with asyncio.timeout(timeout_s):
                status = await _converse(process, config)
        except TimeoutError:
            text = f"CNI plugin {subject} did not end {command} within {timeout_s:g} s and was killed"
            raise _failure(text, IO_FAILURE, command, subject) from None
        finally:
            await _kill_group(process)
        await asyncio.wait([out, err], timeout=_DRAIN_S)
        stdout, stderr = (task.result() if task.done() else b"" for task in (out, err))
    if len(stdout) > MAX_STDOUT_BYTES:
        text = f"CNI plugin {subject} printed more than {MAX_STDOUT_BYTES} bytes at {command}"
        raise _failure(text, DECODING_FAILURE, command, subject)
    return _interpret(command, subject, status, stdout, stderr)


def _failure(text: str, code: int, command: str, subject: str, hint: str = "") -> NetworkError:
    return NetworkError(text, code=code, operation=command, subject=subject, hint=hint)


async def _pipe(stack: contextlib.AsyncExitStack, limit: int) -> tuple[asyncio.Task[bytes], int]:
    """(what will have been read, the end to write to, which the caller closes)."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", 0)
    )
    stack.callback(transport.close)
    task = asyncio.create_task(_read_bounded(reader, limit))
    stack.callback(task.cancel)
    return task, write_fd


async def _converse(process: asyncio.subprocess.Process, config: bytes) -> int:
    assert process.stdin
    # A plugin may end without reading its input: its answer counts, not the broken pipe.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(config)
        await process.stdin.drain()
    process.stdin.close()
    return await process.wait()


async def _read_bounded(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Everything up to the end; of more than `limit` bytes the first `limit` + 1, the rest is read and dropped."""
    kept = bytearray()
    while chunk := await stream.read(65536):
        kept += chunk[: max(0, limit + 1 - len(kept))]
    return bytes(kept)


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """The plugin leads its own session, so its group is its pid; what it left behind in it dies too.

    Pids are given out in a circle: this one is not another's in the moment since the plugin was reaped.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())


def _interpret(command: str, subject: str, status: int, stdout: bytes, stderr: bytes) -> Any:
    text = stdout.decode(errors="replace").strip()
    document: Any = None
    garbage = False
    if text:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            garbage = True
    is_error = isinstance(document, dict) and isinstance(document.get("code"), int) and document["code"] != 0
    if status == 0 and not garbage and not (is_error and "ips" not in document):
        return document
    last_words = _last_words(stderr.decode(errors="replace"))
    if is_error:
        code = document["code"]
        message = str(document.get("msg") or describe_code(code))
        details = str(document.get("details") or "")
        sentence = f"CNI plugin {subject} failed at {command}: {_tidy(message)}"
        if details:
            sentence += f" ({_tidy(details)})"
        if code < 100 and document.get("msg"):
            sentence += f" [code {code}: {describe_code(code)}]"
        raise _failure(sentence, code, command, subject, last_words)
    if status == 0:
        sentence = f"CNI plugin {subject} printed no JSON at {command}: {_tidy(text)[:200]!r}"
        raise _failure(sentence, DECODING_FAILURE, command, subject, last_words)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    sentence = f"CNI plugin {subject} {how} at {command}"
    if said := last_words or _tidy(text)[:500]:
        sentence += f": {said}"
    raise _failure(sentence, 999, command, subject)


def _last_words(stderr: str) -> str:
    """The line of a panic, else the last lines."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in lines:
        if line.startswith(("panic:", "fatal error:")):
            return line[:500]
    return " | ".join(lines[-3:])[-500:]


def _tidy(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
