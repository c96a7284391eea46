"""A start as an OpenTelemetry trace, sent to a collector by OTLP over HTTP.

Made from what a report is made from, after the fact: nothing on the way of a start knows of it.
The packages come with the extra ``otel``.  Names of attributes follow the semantic conventions
where there are any (``container.*``, ``oci.*``, ``file.*``); the others begin with ``clip_runc``.
The same start always gives the same ids: sent twice it is one trace.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clip_runc import __version__
from clip_runc.errors import ClipError, ConfigError
from clip_runc.telemetry.tail import moment
from clip_runc.telemetry.waterfall import Span, Waterfall

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.id_generator import IdGenerator

_AT_ONCE = 512
_SECONDS = 10.0
_PATH = "/v1/traces"


class Collector:
    """A receiver of traces at ``url``; without a path that is a base (``http://localhost:4318``).

    Headers, for a token say, and certificates come from the environment, as OpenTelemetry defines
    it (``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_EXPORTER_OTLP_CERTIFICATE``).  Raises ``ConfigError``
    for what is no URL, ``ClipError`` where OpenTelemetry is not installed.
    """

    def __init__(self, url: str) -> None:
        self._endpoint = endpoint(url)
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise ClipError(
                "OpenTelemetry is not installed", "pip install 'clip-runc[otel]' where clip-runc is"
            ) from None
        self._exporter = OTLPSpanExporter(endpoint=self._endpoint, timeout=_SECONDS)

    def send(self, found: Waterfall) -> int:
        """Send the trace of a start; how many spans that took.  Raises ``ClipError``."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        made = spans(found)
        with _Said() as said:
            for low in range(0, len(made), _AT_ONCE):
                some = made[low : low + _AT_ONCE]
                if self._exporter.export(some) is not SpanExportResult.SUCCESS:
                    why = said.last or "no reason given"
                    raise ClipError(
                        f"{self._endpoint} did not take the trace: {why}",
                        "is it a receiver for OTLP over HTTP with protobuf (port 4318)?",
                    )
        return len(made)


def endpoint(url: str) -> str:
    """Where traces are sent.  Raises ``ConfigError`` for what is no URL of HTTP."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        good = None
    if not good:
        raise ConfigError(f"{url!r} is no URL of a collector", "for instance http://localhost:4318")
    return parts._replace(path=_PATH).geturl() if parts.path in ("", "/") else url


def spans(found: Waterfall) -> Sequence[ReadableSpan]:
    """The trace: the start, below it its phases, the reads that waited, the fetches."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

    resource = Resource.create({SERVICE_NAME: "clip-runc", SERVICE_VERSION: __version__})
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=resource, id_generator=_ids(found), shutdown_on_exit=False
    )
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("clip_runc", __version__)
    began = _epoch(found)

    def nanoseconds(seconds: float) -> int:
        return round((began + seconds) * 1e9)

    top = tracer.start_span("start", start_time=nanoseconds(0), attributes=_attributes(found))
    below = set_span_in_context(top)
    create = tracer.start_span("create", below, start_time=nanoseconds(0))
    inside = set_span_in_context(create)
    done = 0.0
    for phase in found.phases:
        span = tracer.start_span(phase.name, inside, start_time=nanoseconds(phase.start))
        done = phase.start + phase.seconds
        span.end(nanoseconds(done))
    create.end(nanoseconds(done))
    for name, kind, one in _timed(found):
        span = tracer.start_span(
            name,
            below,
            kind=SpanKind.CLIENT if kind else SpanKind.INTERNAL,
            start_time=nanoseconds(one.start),
            attributes=_place(found, one),
        )
        if not one.good:
            span.set_status(StatusCode.ERROR)
        span.end(nanoseconds(one.end))
    top.end(nanoseconds(found.end))
    return kept.get_finished_spans()


def _timed(found: Waterfall) -> Iterator[tuple[str, bool, Span]]:
    """Name of a span, whether it is a request to a registry, and when it was."""
    yield from (("read", False, one) for one in found.waits)
    yield from (("fetch", True, one) for one in found.fetches)


def _attributes(found: Waterfall) -> dict[str, str | int | float]:
    """Those of the whole start."""
    return {
        "container.id": found.container,
        "container.image.name": found.image,
        "oci.manifest.digest": found.digest,
        "clip_runc.mode": found.mode,
        "clip_runc.source": found.source,
        "clip_runc.layers": found.layers_at_start,
        "clip_runc.wanted_bytes": found.wanted,
        "clip_runc.fetched_bytes": found.fetched,
        "clip_runc.waits": len(found.waits),
        "clip_runc.wait_seconds": found.waiting,
    }


def _place(found: Waterfall, one: Span) -> dict[str, str | int]:
    """Those of a read or a fetch."""
    place: dict[str, str | int] = {
        "clip_runc.layer": found.layers[one.layer].digest,
        "clip_runc.offset": one.offset,
        "clip_runc.length": one.length,
    }
    return {**place, "file.path": one.path} if one.path else place


def _epoch(found: Waterfall) -> float:
    """When it began; the time of its event is when its phases were over."""
    return moment(found.started) - sum(phase.seconds for phase in found.phases)


def _ids(found: Waterfall) -> IdGenerator:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    seed = hashlib.sha256(f"{found.container}\0{found.digest}\0{found.started}".encode()).digest()
    numbers = random.Random(seed)

    class FromTheStart(IdGenerator):
        def generate_trace_id(self) -> int:
            return int.from_bytes(seed[:16], "big") or 1

        def generate_span_id(self) -> int:
            return numbers.getrandbits(64) or 1

    return FromTheStart()


class _Said(logging.Handler):
    """Keeps what the exporter logs, which is where it says why it failed, from stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""
        self._logger = logging.getLogger("opentelemetry")

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()

    def __enter__(self) -> _Said:
        self._propagated, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
