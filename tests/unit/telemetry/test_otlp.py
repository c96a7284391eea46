"""A start as a trace: the tree of spans, their times, and collectors that say no."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any

import pytest

from clip_runc.errors import ClipError, ConfigError
from clip_runc.telemetry.otlp import Collector, endpoint
from tests.unit.telemetry.collector import attributes, receiver
from tests.unit.telemetry.waterfalls import EVENT, example


def test_the_tree_and_its_times() -> None:
    with receiver() as server:
        assert Collector(server.url).send(example()) == 8
        spans = server.spans
    (top,) = [span for span in spans if not span.parent_span_id]
    (create,) = [span for span in spans if span.name == "create"]
    below: dict[bytes, list[str]] = {}
    for span in spans:
        below.setdefault(span.parent_span_id, []).append(span.name)
    assert below == {
        b"": ["start"],
        top.span_id: ["create", "read", "read", "fetch", "fetch"],
        create.span_id: ["resolve", "mount"],
    }
    assert len({span.trace_id for span in spans}) == 1
    assert len({span.span_id for span in spans}) == len(spans)
    # the event tells when its phases, of 21 ms, were over
    over = round(datetime.fromisoformat(str(EVENT["time"])).timestamp() * 1e9)
    assert abs(create.end_time_unix_nano - over) < 1_000_000
    assert create.start_time_unix_nano == top.start_time_unix_nano
    assert create.end_time_unix_nano - create.start_time_unix_nano == pytest.approx(21e6, abs=1e3)
    reads = [span for span in spans if span.name == "read"]
    begun = [(one.start_time_unix_nano - top.start_time_unix_nano) / 1e9 for one in reads]
    assert begun == pytest.approx([0.1, 0.2], abs=1e-5)
    assert [one.status.code for one in reads] == [0, 2]  # the second one failed
    assert attributes(reads[0])["file.path"] == "/etc/<b>&\"'"
    assert attributes(reads[0])["clip_runc.layer"] == "aa" * 32
    said = attributes(top)
    assert said["container.id"] == "c1" and said["oci.manifest.digest"] == EVENT["digest"]
    assert said["clip_runc.fetched_bytes"] == example().fetched > 0


def test_the_same_start_is_the_same_trace() -> None:
    with receiver() as server:
        collector = Collector(f"{server.url}/v1/traces")
        collector.send(example())
        collector.send(example())
        first, second = server.requests
    assert first == second


def test_without_what_clipd_saw_there_are_the_phases() -> None:
    with receiver() as server:
        Collector(server.url).send(example(None))
        assert sorted(span.name for span in server.spans) == ["create", "mount", "resolve", "start"]


def test_headers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    with receiver() as server:
        Collector(server.url).send(example())
        assert server.headers[0]["authorization"] == "Bearer abc"


def test_a_collector_that_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    with receiver() as server:
        server.status = 400
        with pytest.raises(ClipError, match=r"/v1/traces did not take the trace: .*400"):
            Collector(server.url).send(example())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://host", "http://", "http://[::1", ""])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL of a collector"):
        Collector(url)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://host:4318", "http://host:4318/v1/traces"),
        ("https://host/", "https://host/v1/traces"),
        ("https://host/otlp/v1/traces?a=b", "https://host/otlp/v1/traces?a=b"),
    ],
)
def test_a_base_gets_the_usual_path(url: str, wanted: str) -> None:
    assert endpoint(url) == wanted


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClipError, match=r"pip install 'clip-runc\[otel\]'"):
        Collector("http://localhost")
