"""Why an operation of a plan failed, for a person: slots by what they hold, and what to do about the usual errors."""

from __future__ import annotations

import errno
import re

from sandbox.errors import PlanError
from sandbox.runtime import ops

MAX_STEP_CHARACTERS = 300
_SLOT = re.compile(r"( as )?\[(\d+)\]")

_HINTS: dict[tuple[type[ops.Op], int], str] = {
    (ops.Exec, errno.ENOENT): "the image has no such command, or a script in it names an interpreter that is missing",
    (ops.Exec, errno.ENOTDIR): "the image has no such command",
    (ops.Exec, errno.EACCES): "the file is there, but this user may not execute it",
    (ops.Exec, errno.ENOEXEC): "the file is no program of this machine; a script begins with #! and its interpreter",
    (ops.Chdir, errno.ENOENT): "the image has no such directory; make it in the image or change the working directory",
    (ops.Chdir, errno.ENOTDIR): "the working directory is a file in this image",
    (ops.Chdir, errno.ELOOP): "a working directory cannot lead through /proc/PID/fd, cwd or root",
    (ops.MoveMount, errno.ENOTDIR): "a directory is mounted on a file, a file on a directory, or below a file",
    (ops.MoveMount, errno.ENOENT): "nothing can be made in the kernel's own /proc and /sys to mount on",
    (ops.MoveMount, errno.ELOOP): "the image has a symbolic link where a directory must be, or links in a circle",
    (ops.OpenTree, errno.EXDEV): "a symbolic link in the volume leads out of it",
}


def plan_error(plan: ops.Plan, index: int, process_id: str, number: int) -> PlanError:
    """The error of operation `index`, to which the kernel answered `number`."""
    step = explain(plan, index)
    hint = _HINTS.get((type(plan.ops[index]), number), "")
    return PlanError(f"{step} failed", operation=step, subject=process_id, errno=number, hint=hint)


def explain(plan: ops.Plan, index: int) -> str:
    """The operation's own description with names for numbers, shortened."""
    held = dict(enumerate(plan.given))
    for op in plan.ops[:index]:
        if isinstance(op, ops.Overlay):
            held[op.fd] = "the container's "
        elif isinstance(op, ops.Filesystem):
            held[op.fd] = f"the new {op.fstype}"
        elif isinstance(op, ops.OpenTree | ops.OpenPath):
            held[op.fd] = f"{op.path}/{op.sub_path}" if isinstance(op, ops.OpenTree) and op.sub_path else op.path
    text = plan.ops[index].describe()
    if not isinstance(plan.ops[index], ops.Exec | ops.Chdir):  # their words are the user's
        text = _SLOT.sub(lambda slot: "" if slot[1] else held.get(int(slot[2]), slot[0]), text)
    return text if len(text) <= MAX_STEP_CHARACTERS else text[:MAX_STEP_CHARACTERS] + "…"
