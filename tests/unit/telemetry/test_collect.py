"""Metrics: names by convention, whatever clipd answers; a dashboard that asks for what there is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from clip_runc.cli.metrics import dashboard_file
from clip_runc.config import Settings
from clip_runc.store.stats import Stats
from clip_runc.telemetry.collect import Collector, families, process
from clip_runc.telemetry.exposition import Family, text
from clip_runc.telemetry.starts import Starts

LAYERS = [{"diff": "a", "complete": True}, {"diff": "b", "complete": False}]


def status() -> dict[str, Any]:
    return {
        "supervisor": {"pid": os.getpid()},
        "keeper": {"pid": 0},
        "server": {"pid": os.getpid(), "restarts": 2, "state": "serving"},
        "images": [{"manifest": "x", "layers": LAYERS}, {"manifest": "y", "layers": LAYERS[:1]}],
        "store": {**Stats(hits=5).as_dict(), "used_bytes": 100, "limit_bytes": 0},
    }


def all_of_them(tmp_path: Path) -> list[Family]:
    seen = Starts()
    seen.add([{"event": "container-started", "mode": "erofs", "mount_ms": 1.0}])
    return list(families(Settings(state_dir=str(tmp_path)), status(), seen))


def test_names_follow_the_conventions(tmp_path: Path) -> None:
    found = all_of_them(tmp_path)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        assert re.fullmatch(r"clip_runc_[a-z_]+", one.name)
        assert (one.kind == "counter") == one.name.endswith("_total"), one.name
        assert one.help.endswith(".") and one.lines, one.name
        if one.kind == "histogram":
            assert one.name.endswith("_seconds")
    shown = text(found)
    assert 'clip_runc_layers{state="complete"} 1\n' in shown
    assert 'clip_runc_layers{state="lazy"} 1\n' in shown
    assert 'clip_runc_reads_total{result="hit"} 5\n' in shown


@pytest.mark.parametrize("answer", [{}, {"store": 3, "images": [], "server": None}])
def test_an_older_clipd_is_no_reason_to_fail(tmp_path: Path, answer: dict[str, Any]) -> None:
    shown = text(families(Settings(state_dir=str(tmp_path)), answer, Starts()))
    assert "clip_runc_up 1\n" in shown
    assert "clip_runc_fetch_seconds" not in shown


def test_without_clipd(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path), run_dir=str(tmp_path))
    shown = Collector(settings).text()
    assert "clip_runc_up 0\n" in shown and "reads_total" not in shown


def test_usage_of_processes() -> None:
    usage = process(os.getpid())
    assert usage is not None and usage[0] > 1 << 20 and usage[1] > 0
    assert process(1 << 30) is None


def test_the_dashboard_asks_for_what_there_is(tmp_path: Path) -> None:
    dashboard = json.loads(dashboard_file().read_text())
    names = {one.name for one in all_of_them(tmp_path)}
    series = names | {
        f"{one.name}_{suffix}"
        for one in all_of_them(tmp_path)
        if one.kind == "histogram"
        for suffix in ("bucket", "sum", "count")
    }
    panels = dashboard["panels"]
    asked: set[str] = set()
    assert len({one["id"] for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for one in panels:
        place = one["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, one["title"]
        taken |= cells
        if one["type"] == "row":
            continue
        assert one["type"] in ("stat", "timeseries") and one["targets"], one["title"]
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in one["targets"]:
            found = set(re.findall(r"clip_runc_\w+", target["expr"]))
            assert found and found <= series, found - series
            assert target["expr"].count("(") == target["expr"].count(")")
            asked |= found
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    assert dashboard["schemaVersion"] >= 36 and dashboard["uid"] == "clip-runc"
    assert len(asked) > 12
