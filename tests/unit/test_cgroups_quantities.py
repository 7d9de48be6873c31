import pytest

from sandbox.cgroups import quantities as q
from sandbox.cgroups.resources import CgroupResources, HugepageLimit
from sandbox.errors import InvalidInput

MI = 1 << 20


def amounts(
    requests: dict[str, int] | None = None, limits: dict[str, int] | None = None, **kind: bool
) -> q.ContainerAmounts:
    return q.ContainerAmounts(requests or {}, limits or {}, **kind)


@pytest.mark.parametrize(
    ("milli", "shares"), [(0, 2), (1, 2), (2, 2), (10, 10), (100, 102), (500, 512), (1000, 1024), (10**6, 262144)]
)
def test_cpu_shares_as_the_kubelet(milli: int, shares: int) -> None:
    assert q.cpu_shares(milli) == shares


@pytest.mark.parametrize(
    ("milli", "quota"), [(0, None), (1, 1000), (9, 1000), (10, 1000), (250, 25000), (2000, 200000)]
)
def test_cpu_quota_as_the_kubelet(milli: int, quota: int | None) -> None:
    assert q.cpu_quota_us(milli) == quota


def test_container_resources() -> None:
    got = q.container_resources({"cpu": 250, "memory": 32 * MI}, {"cpu": 500, "memory": 64 * MI})
    assert got == CgroupResources(
        cpu_shares=256,
        cpu_quota_us=50000,
        cpu_period_us=100000,
        memory_limit_bytes=64 * MI,
        memory_swap_limit_bytes=64 * MI,
    )
    assert q.container_resources({}, {}) == CgroupResources(cpu_shares=2)
    assert q.container_resources({}, {"cpu": 2000}).cpu_shares == 2048
    assert q.container_resources({"cpu": 0}, {"cpu": 2000}).cpu_shares == 2
    assert q.container_resources({}, {}, unified=True).unified == (("memory.oom.group", "1"),)


def test_huge_pages() -> None:
    limits = {"hugepages-2Mi": 4 * MI}
    assert q.container_resources({}, limits).hugepage_limits == (HugepageLimit("2MB", 4 * MI),)
    got = q.container_resources({}, limits, hugepage_sizes=("1GB", "2MB")).hugepage_limits
    assert got == (HugepageLimit("1GB", 0), HugepageLimit("2MB", 4 * MI))
    assert [q.hugepage_size(f"hugepages-{t}") for t in ("64Ki", "2Mi", "512Mi", "1Gi", "16Gi")] == [
        "64KB", "2MB", "512MB", "1GB", "16GB",
    ]  # fmt: skip
    for bad in ("hugepages-", "hugepages-2", "hugepages-xMi", "hugepages-0Mi", "hugepages--2Mi"):
        with pytest.raises(InvalidInput):
            q.hugepage_size(bad)


BOTH = {"cpu": 100, "memory": MI}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([amounts()], "BestEffort"),
        ([amounts({"ephemeral-storage": 5}, {"hugepages-2Mi": 2 * MI})], "BestEffort"),
        ([amounts({"cpu": 0}, {"memory": 0})], "BestEffort"),
        ([amounts(BOTH, BOTH)], "Guaranteed"),
        ([amounts({}, BOTH)], "Guaranteed"),
        ([amounts({}, BOTH), amounts({}, BOTH, init=True)], "Guaranteed"),
        ([amounts({}, BOTH), amounts({}, {}, init=True)], "Burstable"),
        ([amounts({}, BOTH), amounts()], "Burstable"),
        ([amounts({"cpu": 50}, BOTH)], "Burstable"),
        ([amounts({"cpu": 100}, {"cpu": 100})], "Burstable"),
        ([amounts({"memory": 1})], "Burstable"),
    ],
)
def test_qos_class(containers: list[q.ContainerAmounts], expected: str) -> None:
    assert q.qos_class(containers) == expected


def test_qos_class_of_pod_level_resources() -> None:
    assert q.qos_class([amounts()], amounts({}, BOTH)) == "Guaranteed"
    assert q.qos_class([amounts({}, BOTH)], amounts({"cpu": 1})) == "Burstable"
    assert q.qos_class([amounts({}, BOTH)], amounts()) == "Guaranteed"


def test_pod_requests_count_init_containers_and_sidecars() -> None:
    containers = [
        amounts({"cpu": 300}, init=True),
        amounts({"cpu": 50}, init=True, sidecar=True),
        amounts({"cpu": 400}, init=True),
        amounts({"cpu": 100}),
        amounts({"cpu": 200}),
    ]
    assert q.pod_requests(containers) == {"cpu": 450}  # the last init container beside the sidecar
    assert q.pod_requests(containers[:2] + containers[3:]) == {"cpu": 350}  # sidecar and both containers
    assert q.pod_requests([amounts({"cpu": 1})], overhead={"cpu": 10, "memory": 5}) == {"cpu": 11, "memory": 5}
    assert q.pod_limits([amounts({}, {"cpu": 1})], overhead={"cpu": 10, "memory": 5}) == {"cpu": 11}


def test_pod_cgroup_resources() -> None:
    full = {"cpu": 500, "memory": 64 * MI}
    got = q.pod_resources([amounts({}, full), amounts({}, full)], pids_limit=99)
    assert (got.cpu_shares, got.cpu_quota_us, got.cpu_period_us) == (1024, 100000, 100000)
    assert (got.memory_limit_bytes, got.memory_swap_limit_bytes, got.pids_limit) == (128 * MI, None, 99)
    some = q.pod_resources([amounts({}, full), amounts({}, {"cpu": 100})])
    assert (some.cpu_quota_us, some.memory_limit_bytes) == (60000, None)  # one container has no memory limit
    assert q.pod_resources([amounts()]) == CgroupResources(cpu_shares=2)
    level = q.pod_resources([amounts()], pod=amounts({}, {"memory": 10 * MI}))
    assert (level.memory_limit_bytes, level.cpu_quota_us, level.cpu_shares) == (10 * MI, None, 2)


def test_oom_score_adj() -> None:
    gi = 1 << 30
    assert q.oom_score_adj("Guaranteed", 0, gi) == -997
    assert q.oom_score_adj("BestEffort", 0, gi) == 1000
    assert q.oom_score_adj("Burstable", 0, gi) == 999
    assert q.oom_score_adj("Burstable", gi // 4, gi) == 750
    assert q.oom_score_adj("Burstable", gi, gi) == 3


def test_pod_cgroup_path() -> None:
    assert q.pod_cgroup("sandbox", "Burstable", "u1") == "sandbox/burstable/podu1"
    assert q.pod_cgroup("/a/b/", "BestEffort", "u1") == "a/b/besteffort/podu1"
    assert q.pod_cgroup("sandbox", "Guaranteed", "u1") == "sandbox/podu1"
