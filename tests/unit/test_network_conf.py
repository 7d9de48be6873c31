"""Network configurations: what is accepted, what is refused and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import NetworkError
from sandbox.network.conf import choose_network, load_directory, load_file, parse_network
from sandbox.network.types import NetworkConfig

GOOD: dict[str, Any] = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]}


def write(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_directory_is_read_in_order_of_names_and_broken_files_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "20-b.conflist", {**GOOD, "name": "b"})
    write(tmp_path / "10-a.conf", {"cniVersion": "0.4.0", "name": "a", "type": "ptp"})
    write(tmp_path / "05-broken.conflist", "{")
    write(tmp_path / "01-ignored.yaml", GOOD)
    networks, errors = load_directory(tmp_path)
    assert [network.name for network in networks] == ["a", "b"]
    assert networks[0].plugins[0]["type"] == "ptp"
    assert len(errors) == 1
    assert "05-broken.conflist" in str(errors[0])
    assert "not JSON" in str(errors[0])


def test_missing_directory_means_the_embedded_network(tmp_path: Path) -> None:
    config = NetworkConfig(conf_dir=tmp_path / "none", cache_dir=tmp_path, bridge="br7", subnet="10.7.0.0/24")
    network = choose_network(config)
    assert network.name == "sandbox"
    assert network.plugins[0]["bridge"] == "br7"
    assert network.plugins[0]["ranges"] == [[{"subnet": "10.7.0.0/24"}]]


def test_broken_configuration_does_not_fall_back_to_another_network(tmp_path: Path) -> None:
    write(tmp_path / "10.conflist", "[]")
    with pytest.raises(NetworkError, match="not a JSON object"):
        choose_network(NetworkConfig(conf_dir=tmp_path))


def test_network_is_chosen_by_name(tmp_path: Path) -> None:
    write(tmp_path / "10.conflist", {**GOOD, "name": "first"})
    write(tmp_path / "20.conflist", {**GOOD, "name": "second"})
    assert choose_network(NetworkConfig(conf_dir=tmp_path)).name == "first"
    assert choose_network(NetworkConfig(conf_dir=tmp_path, network="second")).name == "second"
    assert choose_network(NetworkConfig(conf_dir=tmp_path, network="sandbox")).source == "the embedded network"
    with pytest.raises(NetworkError, match="no network is named third"):
        choose_network(NetworkConfig(conf_dir=tmp_path, network="third"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "name '../x' is none"),
        ({"name": ""}, "name '' is none"),
        ({"plugins": []}, "plugins is no list"),
        ({"plugins": [{"type": "../bridge"}]}, "plugin type '../bridge' is none"),
        ({"plugins": [{}]}, "plugin type None is none"),
        ({"plugins": [7]}, "plugin type None is none"),
        ({"plugins": [{"type": "b", "capabilities": []}]}, "capabilities of plugin b is no object"),
        ({"cniVersion": "9.9.9"}, "CNI version 9.9.9 is not supported"),
        ({"cniVersion": "0.2.0"}, "CNI version 0.2.0 is not supported"),
        ({"cniVersions": "1.0.0"}, "not a list of versions"),
        ({"disableCheck": 7}, "disableCheck is 7"),
    ],
)
def test_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(NetworkError, match=words.replace("(", r"\(")):
        parse_network({**GOOD, **change}, "file")


def test_a_file_without_version_is_refused_as_0_2_0() -> None:
    with pytest.raises(NetworkError, match=r"0\.2\.0") as caught:
        parse_network({"name": "n", "type": "bridge"}, "file")
    assert caught.value.code == 1


def test_highest_known_of_several_versions() -> None:
    network = parse_network({**GOOD, "cniVersions": ["0.4.0", "1.1.0", "7.0.0", "1.0.0"]}, "file")
    assert network.version == "1.1.0"
    assert network.versions == ("0.4.0", "1.0.0", "1.1.0")


def test_flags_may_be_words() -> None:
    assert parse_network({**GOOD, "disableCheck": "true", "disableGC": True}, "f").disable_check


def test_plugins_in_a_directory_of_the_networks_name(tmp_path: Path) -> None:
    path = write(tmp_path / "10.conflist", {"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "a"}]})
    (tmp_path / "n").mkdir()
    write(tmp_path / "n" / "50.conf", {"type": "b"})
    assert [plugin["type"] for plugin in load_file(path).plugins] == ["a", "b"]
    write(path, {"cniVersion": "1.1.0", "name": "n", "loadOnlyInlinedPlugins": True, "plugins": [{"type": "a"}]})
    assert [plugin["type"] for plugin in load_file(path).plugins] == ["a"]


def test_large_and_deep_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="larger than"):
        load_file(write(tmp_path / "a.conflist", " " * (2 << 20)))
    with pytest.raises(NetworkError, match="not JSON"):
        load_file(write(tmp_path / "b.conflist", "[" * 500_000))


def test_cached_form_reads_back() -> None:
    network = parse_network({**GOOD, "disableGC": True}, "file")
    again = parse_network(network.to_json(), "file")
    assert again == network
