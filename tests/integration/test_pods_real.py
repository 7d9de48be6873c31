"""The pod controller on the real runtime: what a user's manifest does on a host."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from runtime_host import Host

from sandbox.errors import InvalidInput, NotFound, PlanError, SandboxError
from sandbox.manifest import load_manifests
from sandbox.pods import status
from sandbox.pods.controller import PodController
from sandbox.pods.settings import PodSettings
from sandbox.runtime.runtime import Runtime
from sandbox.timeline import Timeline
from tests.unit.pods_fakes import pod, state_of


class Node:
    """A host with a controller; `restart` is a daemon that dies and comes back."""

    def __init__(self, directory: Path) -> None:
        self.host = Host(directory)
        self.events: list[tuple[str, str, str, str, str, str]] = []
        self.settings = PodSettings(self.host.root, self.host.run_dir, backoff_base_s=0.2, backoff_max_s=1.0)
        self.runtime: Runtime
        self.controller: PodController

    async def up(self) -> Node:
        self.runtime = await self.host.runtime()
        self.controller = PodController(
            self.runtime,
            self.host.database,
            self.settings,
            lambda *event: self.events.append(event),
            resolve_image=lambda reference: self.host.images.resolve(reference).id,
        )
        await self.controller.recover()
        return self

    async def restart(self) -> None:
        await self.controller.close()
        await self.host.forget(self.runtime)
        await self.up()

    async def close(self) -> None:
        for each in self.controller.list():
            await self.controller.delete(each["metadata"]["namespace"], each["metadata"]["name"], force=True)
        assert self.runtime.list_pod_sandboxes() == []
        assert str(self.host.run_dir) not in Path("/proc/self/mountinfo").read_text(), "a mount is left"
        await self.controller.close()
        volumes = self.host.run_dir / "volumes"
        if volumes.is_dir():
            volumes.rmdir()
        await self.host.close()

    async def apply(self, *texts: str, **options: Any) -> None:
        files = [(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)]
        await self.controller.apply(load_manifests(files), Timeline(), **options)

    async def run(self, *texts: str, condition: str = "ready", **options: Any) -> dict[str, Any]:
        await self.apply(*texts, **options)
        return await self.controller.wait("default", "web", condition, 20)

    async def say(self, script: str, *others: str, container: str = "", **options: Any) -> list[str]:
        """Runs a script in a pod of its own to the end; its lines."""
        command = f"command: [sh, -c, {script!r}]"
        text = pod(restart="Never", container=f"{command}\n{container}", **options)
        done = await self.run(*others, text, condition="done")
        lines = self.lines()
        assert done["status"]["phase"] == "Succeeded", (done["status"], lines)
        await self.controller.delete("default", "web")
        return lines

    def lines(self, container: str = "", *, previous: bool = False) -> list[str]:
        text = self.controller.log_path("default", "web", container, previous=previous).read_text()
        return [line.split(" ", 3)[3] for line in text.splitlines()]

    async def until(self, test: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not test():
                await asyncio.sleep(0.005)

    def reasons(self, container: str | None = None) -> list[str]:
        return [event[1] for event in self.events if container in (None, event[5])]

    def pid(self, name: str = "app") -> int:
        return self.runtime.container_status(self.controller.container_id("default", "web", name)).pid


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    one = await Node(tmp_path).up()
    yield one
    await one.close()


SLEEP = "command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']"


async def test_two_containers_share_a_volume_and_an_address(node: Node) -> None:
    text = pod(
        containers="app side", spec="volumes: [{name: v, emptyDir: {}}]",
        container=f"{SLEEP}\nvolumeMounts: [{{name: v, mountPath: /v}}]",
    )  # fmt: skip
    ready = await node.run(text)
    assert ready["status"]["podIP"].startswith("10.199.")
    inside = {name: Path(f"/proc/{node.pid(name)}") for name in ("app", "side")}
    assert len({(proc / "ns" / "net").readlink() for proc in inside.values()}) == 1
    assert len({(proc / "ns" / "mnt").readlink() for proc in inside.values()}) == 2
    (inside["app"] / "root" / "v" / "file").write_text("shared")
    assert (inside["side"] / "root" / "v" / "file").read_text() == "shared"
    described = node.controller.describe("default", "web")["runtime"]
    assert described["netnsInode"] and described["pausePid"] and described["namespaces"]["net"]
    assert described["containers"][0]["pid"] == node.pid("app")


async def test_init_containers_prepare_what_the_app_finds(node: Node) -> None:
    text = pod(
        init="one", restart="Never", spec="volumes: [{name: v, emptyDir: {}}]",
        container="command: [cat, /v/made]\nvolumeMounts: [{name: v, mountPath: /v}]",
    ).replace(
        "  - name: one\n", "  - name: one\n    command: [sh, -c, 'echo by init > /v/made']\n"
        "    volumeMounts: [{name: v, mountPath: /v}]\n",
    )  # fmt: skip
    done = await node.run(text, condition="done")
    assert done["status"]["phase"] == "Succeeded" and node.lines() == ["by init"]


async def test_config_maps_secrets_and_the_environment(node: Node) -> None:
    lines = await node.say(
        "echo $A $B $NAME $IP; echo $(cat /c/k /s/word) $(cat /etc/one);"
        " stat -L -c %a /s/word; stat -f -c %T /s; touch /c/x 2>/dev/null || echo ro",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {k: value}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {word: hush}}",
        spec="volumes: [{name: c, configMap: {name: c}}, {name: s, secret: {secretName: s, defaultMode: 0400}}]",
        container="volumeMounts: [{name: c, mountPath: /c}, {name: s, mountPath: /s},"
        " {name: c, mountPath: /etc/one, subPath: k}]\n"
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k}}}, {name: B, value: '$(A)!'},"
        " {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}},"
        " {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]",
    )
    assert lines[0].startswith("value value! web 10.199.0.")
    assert lines[1:4] == ["valuehush value", "400", "tmpfs"]
    assert lines[-1] == "ro"


async def test_memory_volumes_are_limited_and_gone_afterwards(node: Node) -> None:
    lines = await node.say(
        "df -m /m | tail -1 | tr -s ' ' | cut -d' ' -f2; stat -c %a /m;"
        " dd if=/dev/zero of=/m/x bs=1M count=9 2>/dev/null || echo full",
        spec="volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 8Mi}}]",
        container="volumeMounts: [{name: m, mountPath: /m}]",
    )
    assert lines == ["8", "777", "full"]


async def test_a_user_without_privileges_writes_by_its_group(node: Node) -> None:
    lines = await node.say(
        "id; touch /v/mine; stat -c '%u %g' /v/mine; touch /etc/x 2>/dev/null || echo denied",
        spec="volumes: [{name: v, emptyDir: {}}]\n"
        "securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000, supplementalGroups: [7]}",
        container="volumeMounts: [{name: v, mountPath: /v}]",
    )
    assert lines[0].startswith("uid=1000") and "gid=1001" in lines[0] and "2000" in lines[0] and "7" in lines[0]
    assert lines[1:] == ["1000 2000", "denied"]


async def test_host_paths_and_sub_paths(node: Node, tmp_path: Path) -> None:
    there = tmp_path / "there"
    lines = await node.say(
        "echo deep > /a/x; cat /b/one/two/x; touch /r/y 2>/dev/null || echo ro",
        spec=f"volumes: [{{name: h, hostPath: {{path: {there}, type: DirectoryOrCreate}}}}]",
        container="volumeMounts: [{name: h, mountPath: /a, subPath: one/two}, {name: h, mountPath: /b},"
        " {name: h, mountPath: /r, readOnly: true}]",
    )
    assert lines == ["deep", "ro"] and (there / "one" / "two" / "x").read_text() == "deep\n"


async def test_a_sub_path_that_is_a_link_to_the_host_is_refused(node: Node, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("hush")
    there = tmp_path / "there"
    there.mkdir()
    (there / "link").symlink_to(secret)
    with pytest.raises(SandboxError):
        await node.run(
            pod(
                spec=f"volumes: [{{name: h, hostPath: {{path: {there}}}}}]",
                container=f"{SLEEP}\nvolumeMounts: [{{name: h, mountPath: /a, subPath: link}}]",
            )
        )
    assert node.controller.list() == [] and (secret / "key").read_text() == "hush"


async def test_host_aliases_dns_and_hostname(node: Node) -> None:
    lines = await node.say(
        "hostname; grep db.local /etc/hosts | tr '\\t' ' '; cat /etc/resolv.conf",
        spec="hostname: named\nhostAliases: [{ip: 192.0.2.9, hostnames: [db, db.local]}]\ndnsPolicy: None\n"
        "dnsConfig: {nameservers: [192.0.2.53], searches: [a.example], options: [{name: ndots, value: '5'}]}",
    )
    assert lines == ["named", "192.0.2.9 db db.local", "nameserver 192.0.2.53", "search a.example", "options ndots:5"]


async def test_a_crash_is_followed_by_a_restart_within_milliseconds(node: Node) -> None:
    before = await node.run(pod(containers="app side", container=SLEEP))
    side, netns = node.pid("side"), node.controller.describe("default", "web")["runtime"]["netnsInode"]
    waits = []
    for count in (1, 2, 3):
        crashed = time.monotonic()
        os.kill(node.pid("app"), signal.SIGKILL)
        await node.until(lambda n=count: node.reasons("app").count("Started") == n + 1)  # type: ignore[misc]
        waits.append(time.monotonic() - crashed)
    print("restarts after a crash:", ", ".join(f"{wait * 1000:.0f} ms" for wait in waits))
    assert waits[0] < 0.15 and waits[1] > 0.2 and waits[2] > 0.4
    after = node.controller.get("default", "web")
    assert state_of(after, "app")["restartCount"] == 3
    assert state_of(after, "app")["lastState"]["terminated"]["exitCode"] == 137
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert node.pid("side") == side
    assert node.controller.describe("default", "web")["runtime"]["netnsInode"] == netns
    logs = sorted(path.name for path in node.controller.log_path("default", "web", "app").parent.iterdir())
    assert logs == ["2.log", "3.log"], "the present log and the one before it"


@pytest.mark.parametrize(
    ("container", "error", "said"),
    [
        ("command: [/no/such/thing]", PlanError, "/no/such/thing"),
        ("workingDir: /no/such/dir\ncommand: [sh]", SandboxError, "/no/such/dir"),
        ("securityContext: {runAsNonRoot: true}\ncommand: [sh]", InvalidInput, "root"),
    ],
)
async def test_a_pod_that_cannot_start_says_why_and_leaves_nothing(
    node: Node, container: str, error: type[SandboxError], said: str
) -> None:
    with pytest.raises(error) as caught:
        await node.run(pod(container=container, spec="volumes: [{name: m, emptyDir: {medium: Memory}}]"))
    assert said in f"{caught.value} {caught.value.operation}"
    with pytest.raises(NotFound):
        node.controller.get("default", "web")
    assert node.runtime.list_pod_sandboxes() == []
    assert not (node.host.root / "logs").exists() or not list((node.host.root / "logs").iterdir())


async def test_exit_codes_and_the_back_off_of_on_failure(node: Node) -> None:
    text = pod(
        restart="OnFailure", spec="volumes: [{name: v, emptyDir: {}}]",
        container="command: [sh, -c, 'echo x >> /v/runs; [ $(wc -l < /v/runs) = 3 ] || exit 4']\n"
        "volumeMounts: [{name: v, mountPath: /v}]",
    )  # fmt: skip
    done = await node.run(text, condition="done")
    assert done["status"]["phase"] == "Succeeded" and status.exit_code(done) == 0
    assert state_of(done, "app")["restartCount"] == 2
    assert state_of(done, "app")["lastState"]["terminated"]["exitCode"] == 4


async def test_an_oom_kill_is_seen(node: Node) -> None:
    text = pod(
        restart="Never", spec="volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 1Gi}}]",
        container="command: [dd, if=/dev/zero, of=/m/x, bs=1M, count=100]\nresources: {limits: {memory: 24Mi}}\n"
        "volumeMounts: [{name: m, mountPath: /m}]",
    )  # fmt: skip
    done = await node.run(text, condition="done")
    ended = state_of(done, "app")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"], ended["signal"]) == ("OOMKilled", 137, 9), ended
    assert "OOMKilling" in node.reasons("app")


async def test_a_lost_pod_sandbox_comes_back(node: Node) -> None:
    await node.run(pod(container=SLEEP))
    view = node.controller.describe("default", "web")["runtime"]
    os.kill(view["monitorPid"], signal.SIGKILL)
    await node.until(lambda: "SandboxChanged" in node.reasons())
    ready = await node.controller.wait("default", "web", "ready", 20)
    assert state_of(ready, "app")["restartCount"] == 1
    assert node.controller.describe("default", "web")["runtime"]["podSandboxId"] != view["podSandboxId"]
    assert len(node.runtime.list_pod_sandboxes()) == 1


async def test_a_restarted_daemon_finds_its_pods_and_the_exits_it_missed(node: Node) -> None:
    await node.run(pod(containers="app side", container=SLEEP))
    pids = {name: node.pid(name) for name in ("app", "side")}
    await node.controller.close()
    await node.host.forget(node.runtime)
    os.kill(pids["app"], signal.SIGKILL)
    await asyncio.sleep(0.2)
    await node.up()
    await node.until(lambda: state_of(node.controller.get("default", "web"), "app")["restartCount"] == 1)
    await node.controller.wait("default", "web", "ready", 20)
    assert node.pid("side") == pids["side"]
    assert node.reasons("app").count("Exited") == 1
    assert state_of(node.controller.get("default", "web"), "app")["lastState"]["terminated"]["exitCode"] == 137
    await node.restart()
    await asyncio.sleep(0.1)
    assert node.pid("side") == pids["side"] and node.reasons("app").count("Exited") == 1


async def test_stop_gives_the_containers_their_grace(node: Node) -> None:
    await node.run(pod(container=SLEEP))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await node.controller.stop("default", "web", 10)
    assert time.monotonic() - began < 5
    assert state_of(node.controller.get("default", "web"), "app")["state"]["terminated"]["exitCode"] == 0
    await node.controller.delete("default", "web")


async def test_the_timeline_of_a_pod(node: Node) -> None:
    await node.run(pod("warm", container=SLEEP).replace("name: warm", "name: web"))
    await node.controller.delete("default", "web", force=True)
    await node.run(pod(container=SLEEP))
    names = {span.name for span in node.controller.timeline("default", "web").spans}
    assert {"validate", "image", "record", "volumes", "cgroups", "namespaces", "network", "mounts", "exec"} <= names
