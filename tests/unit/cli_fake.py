"""A daemon that is none: a real HTTP server on a unix socket that speaks the API and keeps pods in a dictionary.

It stands at the boundary of the command line. What it answers is held to the truth by `cli_contract.py`, whose
assertions run against this and against the real daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from aiohttp import WSMsgType, web

Json = dict[str, Any]
IMAGE = "localhost/busybox"
LOG = "one\ntwo\nthree\n"


def pod(name: str, namespace: str = "default", phase: str = "Running", **extra: Any) -> Json:
    """A pod with one container, as the daemon's API gives it."""
    running = phase in ("Running", "Pending")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state: Json = {"running": {"startedAt": now}}
    if not running:
        state = {"terminated": {"exitCode": 0 if phase == "Succeeded" else 7, "reason": "Completed"}}
        if phase == "Failed":
            state["terminated"]["reason"] = "Error"
    container = {
        "name": "main",
        "image": IMAGE,
        "imageID": "sha256:00",
        "containerID": f"sandbox://{name}",
        "state": state,
        "lastState": {},
        "ready": running,
        "started": running,
        "restartCount": 0,
    }
    ready = "True" if running else "False"
    value = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": now},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": IMAGE}]},
        "status": {
            "phase": phase,
            "podIP": "10.88.0.2",
            "podIPs": [{"ip": "10.88.0.2"}],
            "qosClass": "BestEffort",
            "startTime": now,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [container],
        },
    }
    value["status"].update(extra)
    return value


def problem(status: int, reason: str, message: str, code: int, hint: str = "", **more: Any) -> web.Response:
    error = {"reason": reason, "message": message, "operation": "", "subject": "", "errno": 0, "hint": hint}
    return web.json_response({"error": {**error, "exitCode": code, **more}}, status=status)


class FakeDaemon:
    """Serves `run_dir`/api.sock in a thread of its own until `close`. `requests` is what was asked, in order."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.pods: dict[tuple[str, str], Json] = {}
        self.images: dict[str, Json] = {}
        self.events: list[Json] = []
        self.requests: list[str] = []
        self.bodies: list[Json] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def add(self, value: Json) -> None:
        self.pods[(value["metadata"]["namespace"], value["metadata"]["name"])] = value

    def _serve(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._note], client_max_size=16 << 20)
        one = "/v1/namespaces/{namespace}/pods/{name}"
        app.add_routes(
            [
                web.get("/v1/version", self._version),
                web.post("/v1/apply", self._apply),
                web.post("/v1/down", self._down),
                web.get("/v1/pods", self._list),
                web.get(one, self._get),
                web.delete(one, self._delete),
                web.post(one + "/stop", self._stop_pod),
                web.patch(one + "/resources", self._update),
                web.get(one + "/describe", self._describe),
                web.get(one + "/log", self._log),
                web.get(one + "/exec", self._exec),
                web.get(one + "/attach", self._exec),
                web.get("/v1/stats", self._stats),
                web.get("/v1/events", self._events),
                web.get("/v1/images", self._images),
                web.post("/v1/images/load", self._load),
                web.delete("/v1/images", self._rmi),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self.run_dir / "api.sock")).start()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _note(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        return await handler(request)

    def _find(self, request: web.Request) -> Json | None:
        return self.pods.get((request.match_info["namespace"], request.match_info["name"]))

    def _missing(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return problem(404, "NotFound", f"there is no pod {name!r} in namespace 'default'", 3)

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": "0.1.0", "api": "v1", "pid": 1, "root": "/r", "runDir": str(self.run_dir)})

    async def _apply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        documents = []
        for file in body["files"]:
            for number, line in enumerate(file["content"].splitlines(), 1):
                if "imag:" in line:
                    message = f"{file['name']}:{number}:{line.index('imag:') + 1}: unknown field 'imag'"
                    place = {"file": file["name"], "line": number, "column": line.index("imag:") + 1}
                    return problem(400, "InvalidManifest", message, 2, "did you mean 'image'?", **place)
            documents += [d for d in yaml.safe_load_all(file["content"]) if d and d["kind"] == "Pod"]
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)

        async def tell(**event: Any) -> None:
            await response.write(json.dumps(event).encode() + b"\n")

        code = 0
        for document in documents:
            name = document["metadata"]["name"]
            if body["dryRun"]:
                await tell(type="plan", pod=name, container="main", lines=["exec sleep"])
                continue
            words = " ".join(document["spec"]["containers"][0].get("command", []))
            ends = body["wait"] == "done"
            code = code or (7 if ends and "exit 7" in words else 0)
            made = pod(name, phase="Running" if not ends else "Failed" if "exit 7" in words else "Succeeded")
            await tell(type="progress", pod=name, message="creating")
            if not body["rm"]:
                self.add(made)
            spans = [
                {"name": "validate", "subject": "", "startMicroseconds": 0, "durationMicroseconds": 1000},
                {"name": "network", "subject": "", "startMicroseconds": 1000, "durationMicroseconds": 9000},
            ]
            await tell(type="timeline", pod=name, spans=spans)
            await tell(type="pod", pod=made)
        await tell(type="end", exitCode=code)
        return response

    async def _down(self, request: web.Request) -> web.Response:
        names = []
        for file in (await request.json())["files"]:
            for document in yaml.safe_load_all(file["content"]):
                if document["kind"] == "Pod" and self.pods.pop(("default", document["metadata"]["name"]), None):
                    names.append(document["metadata"]["name"])
        objects = [f"Pod/default/{name}" for name in names]
        return web.json_response({"removed": names, "objects": objects})

    async def _list(self, request: web.Request) -> web.Response:
        namespace, all_ = request.query.get("namespace"), request.query.get("all") == "1"
        items = [
            value
            for (where, _), value in self.pods.items()
            if (not namespace or where == namespace)
            and (all_ or value["status"]["phase"] not in ("Succeeded", "Failed"))
        ]
        return web.json_response({"apiVersion": "v1", "kind": "List", "items": items})

    async def _get(self, request: web.Request) -> web.Response:
        value = self._find(request)
        return self._missing(request) if value is None else web.json_response(value)

    async def _delete(self, request: web.Request) -> web.Response:
        key = (request.match_info["namespace"], request.match_info["name"])
        return web.json_response({}) if self.pods.pop(key, None) else self._missing(request)

    async def _stop_pod(self, request: web.Request) -> web.Response:
        value = self._find(request)
        if value is None:
            return self._missing(request)
        self.bodies.append(await request.json())
        value["status"]["phase"] = "Succeeded"
        return web.json_response(value)

    async def _update(self, request: web.Request) -> web.Response:
        value = self._find(request)
        if value is None:
            return self._missing(request)
        body = await request.json()
        self.bodies.append(body)
        if body["limits"].get("memory") == "1Ki":
            return problem(400, "Invalid", "memory limit 0.0 MiB of container main is below its present use", 2)
        same = body["limits"] == {"cpu": "1"}
        return web.json_response({"pod": value, "changes": [] if same else ["main: cpu limit 1 → 2"]})

    async def _describe(self, request: web.Request) -> web.Response:
        value = self._find(request)
        if value is None:
            return self._missing(request)
        runtime = {"cgroup": "sandbox/besteffort/pod1", "containers": [{"name": "main", "pid": 4242}]}
        return web.json_response({"pod": value, "events": self.events, "runtime": runtime})

    async def _log(self, request: web.Request) -> web.StreamResponse:
        if self._find(request) is None:
            return self._missing(request)
        lines = LOG.splitlines(keepends=True)
        if "tail" in request.query:
            count = int(request.query["tail"])
            lines = lines[len(lines) - count :]
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        for line in lines:
            await response.write(line.encode())
        while request.query.get("follow") == "1":
            await asyncio.sleep(0.05)
            await response.write(b"more\n")
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        if self._find(request) is None:
            return self._missing(request)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",), max_msg_size=4 << 20)
        await socket.prepare(request)
        command = request.query.getall("command", [])
        code = 0
        if command[:1] == ["exit"]:
            code = int(command[1])
        elif command[:1] == ["echo"]:
            await socket.send_bytes(b"\x01" + " ".join(command[1:]).encode() + b"\n")
            await socket.send_bytes(b"\x02to stderr\n")
        elif command[:1] == ["cat"]:
            await self._cat(socket)
        elif command[:1] == ["missing"]:
            await socket.send_bytes(b"\x03" + json.dumps({"status": "Failure", "message": "no such program"}).encode())
            return socket
        elif command[:1] == ["vanish"]:
            await socket.close()
            return socket
        failure = {
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
        await socket.send_bytes(b"\x03" + json.dumps(failure if code else {"status": "Success"}).encode())
        await socket.close()
        return socket

    async def _cat(self, socket: web.WebSocketResponse) -> None:
        """Sends back what comes; like a process, it takes no more while its output is not taken."""
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            if message.data == b"\xff\x00":
                return
            if message.data[:1] == b"\x00":
                await socket.send_bytes(b"\x01" + message.data[1:])
            elif message.data[:1] == b"\x04":
                await socket.send_bytes(b"\x01" + message.data[1:] + b"\n")

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "1":
            return web.json_response(self._sample(request))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not self._stop.is_set():
                await response.write(json.dumps(self._sample(request)).encode() + b"\n")
                await asyncio.sleep(float(request.query["interval"]))
        return response

    def _sample(self, request: web.Request) -> Json:
        usage = {
            "cpuNanoseconds": time.time_ns() // 2,  # half a CPU
            "cpuThrottledNanoseconds": time.time_ns() // 4,
            "timeNanoseconds": time.time_ns(),
            "memoryWorkingSetBytes": 8 << 20,
            "memoryPeakBytes": 9 << 20,
            "memoryLimitBytes": 64 << 20,
            "oomKills": 3,
            "pids": 2,
            "pressure": {"cpu": {"someAverage10Seconds": 12.4}, "memory": {"someAverage10Seconds": 0.0}},
        }
        names = request.query.getall("pod", [])
        pods = [
            {"namespace": where, "name": name, **usage, "containers": [{"name": "main", **usage}]}
            for where, name in self.pods
            if (not names or name in names) and request.query.get("namespace", "") in ("", where)
        ]
        return {"pods": pods}

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for event in self.events:
            if event["sequence"] > int(request.query.get("after", 0)):
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def _images(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": list(self.images.values())})

    async def _load(self, request: web.Request) -> web.Response:
        data = await request.read()
        if data[257:262] != b"ustar":
            return problem(400, "Invalid", "the archive is neither an OCI layout nor a docker archive", 2)
        name = request.query.get("name") or "localhost/loaded:latest"
        image = {"id": "sha256:" + "ab" * 32, "names": [name], "sizeBytes": len(data), "created": "", "layers": ["/l"]}
        self.images[name] = image
        return web.json_response({"loaded": [image]})

    async def _rmi(self, request: web.Request) -> web.Response:
        reference = request.query["reference"]
        if self.images.pop(reference, None) is None:
            return problem(404, "ErrImageNeverPull", f"there is no image {reference!r}", 3)
        return web.json_response({"removed": [reference]})
