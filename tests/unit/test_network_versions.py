"""Results of every CNI version."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import NetworkError
from sandbox.network.manager import summarise
from sandbox.network.versions import SUPPORTED, convert_result, has_check, has_gc, highest_common, parse_result

RESULT: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "br"}, {"name": "eth0", "sandbox": "/n", "mtu": 1400, "socketPath": "/s"}],
    "ips": [
        {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1},
        {"address": "fd00::2/64", "interface": 1},
        {"address": "192.0.2.1/32", "interface": 0},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "table": 5}],
    "dns": {"nameservers": ["10.0.0.1"]},
}


def test_going_down_adds_and_drops_what_the_version_has() -> None:
    old = convert_result(RESULT, "0.4.0")
    assert [ip["version"] for ip in old["ips"]] == ["4", "6", "4"]
    assert "mtu" not in old["interfaces"][1]
    assert old["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]
    assert "version" not in convert_result(old, "1.0.0")["ips"][0]
    assert RESULT["interfaces"][1]["mtu"] == 1400, "the original is not touched"


@given(st.sampled_from(SUPPORTED), st.sampled_from(SUPPORTED))
def test_addresses_survive_every_way(one: str, other: str) -> None:
    result = convert_result(convert_result(RESULT, one), other)
    assert parse_result(result, "test")["cniVersion"] == other
    assert [ip["address"] for ip in result["ips"]] == [ip["address"] for ip in RESULT["ips"]]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ({}, "cniVersion is ''"),
        ({"cniVersion": "0.2.0", "ip4": {}}, "cniVersion is '0.2.0'"),
        ({"cniVersion": "1.0.0", "ips": {}}, "ips is not a list"),
        ({"cniVersion": "1.0.0", "ips": [{}]}, "no address"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "a", "interface": 3}]}, "names interface 3"),
        ({"cniVersion": "1.0.0", "routes": [{}]}, "no dst"),
        ({"cniVersion": "1.0.0", "dns": [1]}, "dns is not"),
    ],
)
def test_what_is_no_result_is_refused(document: Any, words: str) -> None:
    with pytest.raises(NetworkError, match=words) as caught:
        parse_result(document, "CNI plugin x")
    assert caught.value.code == 6


def test_highest_common() -> None:
    assert highest_common(["0.4.0", "1.0.0"], ["1.0.0", "1.1.0"]) == "1.0.0"
    assert highest_common(["0.1.0"]) is None
    assert not has_check("0.3.1")
    assert has_check("0.4.0")
    assert not has_gc("1.0.0")
    assert has_gc("1.1.0")


def test_summary_leaves_out_addresses_of_other_interfaces() -> None:
    summary = summarise(RESULT, "eth0")
    assert summary.addresses == ("10.0.0.2/24", "fd00::2/64")
    assert summary.gateway == "10.0.0.1"
    assert summary.routes == (("0.0.0.0/0", "10.0.0.1"),)
    assert summary.dns == {"nameservers": ["10.0.0.1"]}
