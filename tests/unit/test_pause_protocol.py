"""The header of the C program and the Python side say the same."""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path

import pytest

from sandbox.runtime import ops, protocol

HEADER = (Path(__file__).parents[2] / "pause" / "protocol.h").read_text()
DEFINES = {name: int(value.rstrip("u"), 0) for name, value in re.findall(r"#define (\w+) \(?(-?\w+)\)?", HEADER)
           if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)u?", value)}  # fmt: skip


def enum(name: str) -> dict[str, int]:
    match = re.search(rf"enum {name} {{(.*?)}};", HEADER, re.DOTALL)
    assert match is not None
    return {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", match[1])}


def upper_name(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def test_every_operation_has_the_same_code() -> None:
    ours = {f"OP_{upper_name(op.__name__)}": op.code for op in ops.Op.__subclasses__()}
    theirs = enum("op_code")
    theirs.pop("OP_CODE_END")
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PLAN_MAGIC", ops.MAGIC),
        ("PLAN_VERSION", ops.VERSION),
        ("MAX_OPS", ops.MAX_OPS),
        ("MAX_SLOTS", ops.MAX_SLOTS),
        ("MAX_PLAN_BYTES", ops.MAX_PLAN_BYTES),
        ("HOST", ops.HOST),
        ("NONE", ops.NONE),
        ("FLAG_OPTIONAL", ops.OPTIONAL),
        ("WIRE_MAGIC", protocol.WIRE_MAGIC),
        ("WIRE_VERSION", protocol.WIRE_VERSION),
        ("PROCESS_ID_BYTES", protocol.PROCESS_ID_BYTES),
        ("MAX_MESSAGE_FDS", protocol.MAX_MESSAGE_FDS),
        ("RUN_STDIN", protocol.RUN_STDIN),
        ("RUN_TTY", protocol.RUN_TTY),
        ("RUN_CAPTURE", protocol.RUN_CAPTURE),
        ("RUN_RECORD_EXIT", protocol.RUN_RECORD_EXIT),
        ("ATTACH_STDOUT", protocol.ATTACH_STDOUT),
        ("ATTACH_STDERR", protocol.ATTACH_STDERR),
    ],
)
def test_constants(name: str, value: int) -> None:
    assert DEFINES[name] == value


def test_marks_fit() -> None:
    assert max(ops.MARK_NAMES) < DEFINES["MAX_MARKS"]


def test_enumerations() -> None:
    assert {f"REQUEST_{k.name}": k.value for k in protocol.RequestKind} == enum("request_kind")
    assert {f"STAGE_{s.name}": s.value for s in protocol.Stage} == enum("stage")
    assert enum("process_state")["STATE_EXITED"] == protocol.STATE_EXITED
    assert enum("reply_kind") == {"REPLY_ANSWER": protocol.REPLY_ANSWER, "REPLY_EXIT": protocol.REPLY_EXIT}


def test_sizes_are_those_the_header_asserts() -> None:
    sizes = {name: int(size) for name, size in re.findall(r"sizeof\(struct (\w+)\) == (\d+)", HEADER)}
    assert sizes == {
        "plan_header": 16,
        "plan_op": ops.OP_BYTES,
        "request": protocol.REQUEST_BYTES,
        "reply": protocol.REPLY_BYTES,
        "wire_process": protocol.PROCESS_BYTES,
    }


def reply(**changes: int) -> bytes:
    values = {"magic": protocol.WIRE_MAGIC, "version": 1, "kind": 1, "seq": 7, "error": 0, "op_index": -1, "pid": 5,
              "stage": 0, "more": 0, "warnings": 0, "marks": 0, "processes": 0} | changes  # fmt: skip
    return struct.pack("=IHHQiiiHHHHI", *values.values())


def test_reply_round_trip() -> None:
    data = reply(warnings=1, marks=1, processes=1) + struct.pack("=II", 3, 13) + struct.pack("=QQ", 2, 99)
    data += struct.pack("=104siIiiQQ", b"web", 42, 3, 137, 9, 5, 4)
    got = protocol.unpack_reply(data, ())
    assert got.warnings == ((3, 13),) and got.marks == {2: 99}
    record = protocol.ExitRecord("web", 42, 137, 9, 5, 4)
    assert got.processes == (protocol.ProcessInfo("web", 42, False, record, 4),)


@pytest.mark.parametrize(
    "data", [b"", reply()[:-1], reply() + b"x", reply(magic=1), reply(version=2), reply(marks=1), reply(stage=99)]
)
def test_a_wrong_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"packet|magic|Stage"):
        protocol.unpack_reply(data, ())


def test_a_long_process_id_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        protocol.pack_request(protocol.RequestKind.RUN, 1, "x" * 104)


def test_descriptors_of_a_refused_packet_are_closed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        left, right = socket.socketpair()
        with left:
            protocol.send(theirs, b"nonsense", (right.fileno(),))
            right.close()
            with pytest.raises(ValueError, match="bytes"):
                protocol.receive(ours)
            assert left.recv(1) == b""
