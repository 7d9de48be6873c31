"""Every exception that this project raises on purpose, on one page.

Each carries what was tried (`operation`), on what (`subject`), the kernel's answer (`errno`) where there is one,
and what to do next (`hint`). They are mapped once to process exit codes (`exit_code`), once to HTTP status codes
(`http_status`); the CRI maps them once to gRPC codes.
"""

from __future__ import annotations

import errno as errno_names
import os

TYPE_CHECKING = False  # `typing` takes longer to import than most of what is here to run
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, ClassVar


class SandboxError(Exception):
    """Base of the hierarchy. `str()` is one sentence: lower case, no full stop, with the offending value."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        subject: str = "",
        errno: int = 0,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.hint = hint

    def __str__(self) -> str:
        text = self.message
        if self.errno:
            text += f": {errno_names.errorcode.get(self.errno, self.errno)} ({os.strerror(self.errno).lower()})"
        return text

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` in the CLI turns back into the same sentence and exit code."""
        return {
            "reason": self.reason,
            "message": str(self),
            "operation": self.operation,
            "subject": self.subject,
            "errno": self.errno,
            "hint": self.hint,
            "exitCode": self.exit_code,
        }


class InvalidInput(SandboxError):
    """Something from outside is not what it must be: nothing was created. Exit code 2."""

    exit_code = 2
    http_status = 400
    reason = "Invalid"


class ManifestError(InvalidInput):
    """A manifest is wrong at `file`:`line`:`column` (1-based; 0 where unknown)."""

    reason = "InvalidManifest"

    def __init__(self, message: str, *, file: str = "", line: int = 0, column: int = 0, hint: str = "") -> None:
        super().__init__(message, operation="validate", subject=file, hint=hint)
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " if self.file else ""
        return place + self.message

    @property
    def errors(self) -> tuple[ManifestError, ...]:
        """Every problem that was found; the one itself where there is one."""
        return (self,)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"file": self.file, "line": self.line, "column": self.column}


class ManifestErrors(ManifestError):
    """Several problems found at once. `file`, `line`, `column`, `hint` are the first one's; `str()` is a line each."""

    def __init__(self, errors: Sequence[ManifestError]) -> None:
        first = errors[0]
        super().__init__(first.message, file=first.file, line=first.line, column=first.column, hint=first.hint)
        self._errors = tuple(errors)

    @property
    def errors(self) -> tuple[ManifestError, ...]:
        return self._errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self._errors)


class UnsupportedByHost(InvalidInput):
    """The kernel or the host lacks what was asked for (a controller, a file system): nothing was created."""

    reason = "UnsupportedByHost"


class NotFound(SandboxError):
    """No object of that name. Exit code 3."""

    exit_code = 3
    http_status = 404
    reason = "NotFound"


class Forbidden(SandboxError):
    """The caller may not do this: neither root nor the daemon's own user."""

    http_status = 403
    reason = "Forbidden"


class ImageNotFound(NotFound):
    """The image is not in the store and cannot be had."""

    reason = "ErrImageNeverPull"


class Conflict(SandboxError):
    """The object exists already, or is in a state that forbids the operation. Exit code 4."""

    exit_code = 4
    http_status = 409
    reason = "Conflict"


class DeadlineExceeded(SandboxError):
    """A wait ran out of time. Exit code 5."""

    exit_code = 5
    http_status = 504
    reason = "Timeout"


class DaemonUnavailable(SandboxError):
    """No daemon answers at the API socket, and none could be started. Exit code 6."""

    exit_code = 6
    http_status = 503
    reason = "DaemonUnavailable"


class KernelError(SandboxError):
    """The kernel refused an operation that the host was expected to allow."""

    reason = "KernelError"


class PlanError(KernelError):
    """An operation of a plan failed inside the pod: `operation` describes it, `errno` is the kernel's answer."""

    reason = "PlanFailed"


class NetworkError(SandboxError):
    """A CNI plugin failed: `operation` is its command, `subject` the plugin and network, `code` its error code."""

    reason = "NetworkError"

    def __init__(self, message: str, *, code: int = 0, operation: str = "", subject: str = "", hint: str = "") -> None:
        super().__init__(message, operation=operation, subject=subject, hint=hint)
        self.code = code


class MonitorError(SandboxError):
    """The monitor of a pod does not answer, died, or answered what it must not."""

    reason = "MonitorError"


class StateError(SandboxError):
    """What lies in the state directory cannot be used."""

    reason = "StateError"
