"""What is made of results: raw data and back, tables, plots, and the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from experiment_results import made_up

from sandbox.errors import InvalidInput, NotFound, SandboxError, UnsupportedByHost
from sandbox.experiments import plot
from sandbox.experiments.declaration import declared_names
from sandbox.experiments.experiment import Settings
from sandbox.experiments.page import page, write_page
from sandbox.experiments.result import from_json, path_of, prepare_directory, results_in, write_json
from sandbox.experiments.run import check_settings

REFUSAL = "memory.high needs cgroup v2, and the memory controller is mounted as v1"


@pytest.mark.parametrize("name", declared_names())
def test_raw_data_say_all_that_the_result_said(name: str) -> None:
    result = made_up(name)
    raw = json.loads(json.dumps(result.to_json()))
    back = from_json("file.json", raw)
    assert back.to_json() == result.to_json()
    assert back.lines() == result.lines()


def test_raw_data_state_seed_repetitions_and_how_it_was_declared() -> None:
    raw = made_up("io").to_json()
    assert raw["settings"] == {
        "repetitions": 2, "seed": 1, "windowSeconds": 2.0, "limits": ["1Mi", "2Mi"],
        "disk": "a file on sda (8:0)", "device": "8:0",
    }  # fmt: skip
    assert len(raw["samples"]) == 8
    assert raw["summary"][0]["errorPercent"] == pytest.approx(-4.0)
    assert raw["declaration"].startswith("name: io\n")


def test_the_table_has_a_line_a_limit() -> None:
    lines = made_up("cpu").lines()
    assert lines[3].split()[:4] == ["LIMIT", "MEDIAN", "ERROR", "BAND"]
    assert lines[4].split()[:6] == ["100", "96", "-4.0%", "92", "-", "100"]
    assert "6.1.0-test" in lines[-1] and "cgroup v2" in lines[-1]
    assert made_up("io").lines()[3].startswith("SERIES")


def test_a_claim_stands_beside_what_was_expected() -> None:
    lines = made_up("shares-512").lines()
    assert lines[3].split()[:5] == ["CASE", "CLAIM", "EXPECTED", "MEDIAN", "ERROR"]


def test_a_refusal_is_a_result() -> None:
    result = made_up("memory-high", "v1", refused=REFUSAL)
    assert f"refused: {REFUSAL}" in result.lines()
    assert from_json("x", json.loads(json.dumps(result.to_json()))).refused == REFUSAL


def test_a_busy_host_is_mentioned() -> None:
    assert not made_up("cpu").notes()
    assert "busy" in made_up("cpu", load=3.0).notes()[0]
    assert not made_up("pids", load=3.0).notes(), "forks do not depend on it"


def test_raw_data_are_written_whole_and_found_again(tmp_path: Path) -> None:
    for name, mode in (("memory", "v2"), ("cpu", "v2"), ("memory", "hybrid")):
        write_json(made_up(name, mode), path_of(made_up(name, mode), tmp_path))
    (tmp_path / "other.json").write_text('{"kind": "something else"}')
    assert sorted(p.name for p in tmp_path.glob("*-*.json")) == ["cpu-v2.json", "memory-hybrid.json", "memory-v2.json"]
    found = [(r.experiment.name, r.mode) for r in results_in(tmp_path)]
    assert found == [("cpu", "v2"), ("memory", "hybrid"), ("memory", "v2")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.pop("samples"),
        lambda raw: raw.update(samples=[{"case": "no such case"}]),
        lambda raw: raw.update(declaration="name: x"),
        lambda raw: raw.update(settings=None),
        lambda raw: raw["host"].update(cgroups="v3"),
    ],
)
def test_broken_raw_data_are_refused_with_the_file(spoil: object, tmp_path: Path) -> None:
    raw = made_up("cpu").to_json()
    spoil(raw)  # type: ignore[operator]
    (tmp_path / "broken.json").write_text(json.dumps(raw))
    with pytest.raises(InvalidInput, match=r"broken\.json"):
        results_in(tmp_path)


def test_text_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"broken\.json"):
        results_in(tmp_path)


def test_a_directory_without_results(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no result"):
        results_in(tmp_path)


def test_a_directory_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxError, match="cannot write"):
        prepare_directory(tmp_path / "file" / "below")


def test_settings_that_an_experiment_has_not() -> None:
    with pytest.raises(InvalidInput, match="no window"):
        check_settings(made_up("pids").experiment, Settings(window_s=1))
    with pytest.raises(InvalidInput, match="no disk"):
        check_settings(made_up("cpu").experiment, Settings(loop=True))
    check_settings(made_up("io").experiment, Settings(loop=True, window_s=1))


@pytest.mark.parametrize("name", ["cpu", "io", "cpu-weight", "noisy-neighbour"])
def test_the_plot_is_a_picture(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(made_up(name), tmp_path / "plot.png")
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert width > 800
    assert height > 300


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)
    with pytest.raises(UnsupportedByHost) as caught:
        plot.draw(made_up("cpu"), tmp_path / "plot.png")
    assert "plots" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert "<table" in page([made_up("cpu")]), "the figures are told all the same"


class Page(HTMLParser):
    """What a browser would fetch, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        for key in ("href", "xlink:href", "src", "srcset", "data", "action", "poster"):
            value = values.get(key)
            if value is not None:
                (self.links if value.startswith("#") else self.fetched).append(value)


@pytest.fixture(scope="module")
def everything() -> str:
    pytest.importorskip("matplotlib")
    results = [made_up(name, mode) for name in declared_names() for mode in ("v1", "v2") if name != "memory-high"]
    refused = made_up("memory-high", "v1", refused=REFUSAL)
    return page([*results, refused, made_up("memory-high", "v2")])


def test_the_page_loads_nothing(everything: str) -> None:
    found = Page(everything)
    assert found.fetched == []
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", everything)
    assert not {"script", "iframe", "link", "img", "object", "embed", "image"} & set(found.tags)


def test_every_link_of_the_page_leads_somewhere_and_no_id_is_there_twice(everything: str) -> None:
    found = Page(everything)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", everything)) <= set(found.ids)


def test_both_kernels_stand_side_by_side_and_a_refusal_beside_a_result(everything: str) -> None:
    assert everything.count("<svg") == len(declared_names())
    for mode in ("v1", "v2"):
        assert everything.count(f">cgroup {mode}</text>") == len(declared_names()), "a column in each plot"
    assert f"refused: {REFUSAL}" in everything
    assert "--repetitions 2 --seed 1" in everything


def test_the_same_results_make_the_same_page(everything: str) -> None:
    assert page([made_up("cpu")]) == page([made_up("cpu")])


def test_text_of_a_declaration_is_no_markup(tmp_path: Path) -> None:
    raw = made_up("cpu").to_json()
    raw["declaration"] = raw["declaration"].replace("CPU limit:", "<script>alert(1)</script> $x$ &")
    raw["host"]["kernel"] = "<b>6</b>"
    write_page([from_json("x.json", raw)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text and "<b>" not in text
    assert "&lt;script&gt;" in text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_the_results_in_the_documentation_can_be_read_and_their_page_loads_nothing() -> None:
    directory = Path(__file__).parents[2] / "docs" / "experiments"
    results = results_in(directory)
    assert {r.experiment.name for r in results} == set(declared_names())
    text = (directory / "report.html").read_text()
    assert Page(text).fetched == []
    assert not re.search(r"https?:", text)
    for result in results:
        assert f"--repetitions {result.experiment.repetitions} --seed {result.experiment.seed}" in text
