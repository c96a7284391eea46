"""Starts as OpenTelemetry traces, at a receiver of OTLP: one that is asked for, and each one."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import wait_for
from tests.unit.telemetry.collector import attributes, receiver


def test_a_start_at_a_collector(clip: ClipMachine, busybox_ref: str) -> None:
    clip.configure(image_linger=300)
    bundle = clip.bundle(busybox_ref, "/bin/cat", "/srv/data/a")
    program = [sys.executable, "-u", "-m", "clip_runc.cli.main", "traces", "--seconds", "2"]
    with receiver() as server:
        environ = {**os.environ, **clip.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": server.url}
        follower = subprocess.Popen(program, env=environ, stderr=subprocess.PIPE, text=True)
        try:
            assert follower.stderr and "are sent to" in follower.stderr.readline()
            clip.runc("run", "--bundle", bundle, "traced", check=True)
            wait_for(lambda: bool(server.spans), "a trace", seconds=30)
            said = follower.stderr.readline()
        finally:
            follower.terminate()
            follower.communicate()
        assert said == f"traced: {len(server.spans)} spans sent\n"
        names = {span.name for span in server.spans}
        assert names == {"start", "create", "resolve", "mount", "rewrite", "read", "fetch"}
        (top,) = [span for span in server.spans if not span.parent_span_id]
        found = attributes(top)
        assert found["container.id"] == "traced" and found["container.image.name"]
        assert found["clip_runc.fetched_bytes"] == sum(
            int(attributes(span)["clip_runc.length"])
            for span in server.spans
            if span.name == "fetch"
        )
        trace = top.trace_id

        server.requests.clear()
        done = clip.ctl("report", "traced", "--otlp", server.url, check=True)
        assert not done.stdout and "spans sent" in done.stderr
        assert {span.trace_id for span in server.spans} == {trace}

        server.status = 400
        done = clip.ctl("report", "traced", "--otlp", server.url)
        assert done.returncode == 1 and "did not take the trace" in done.stderr
