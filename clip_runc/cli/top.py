"""``clipctl top``: containers and what clipd does for them, again and again."""

from __future__ import annotations

import time
from typing import Any

import click

from clip_runc.cli.console import size
from clip_runc.config import Settings, load


@click.command("top")
@click.option("--interval", "-d", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True,
              help="Seconds between two looks.")  # fmt: skip
@click.option("--once", is_flag=True, help="Two looks, and out; for scripts.")
def command(interval: float, once: bool) -> None:
    """Show containers and the rates of reads, waits and fetches, live.  Control-C ends it."""
    from rich.console import Console
    from rich.live import Live

    from clip_runc.telemetry.collect import status

    settings, console = load(), Console()
    before, at = status(settings), time.monotonic()
    if once or not console.is_terminal:
        time.sleep(interval)
        console.print(page(settings, before, status(settings), time.monotonic() - at))
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                now, then = status(settings), time.monotonic()
                shown = page(settings, before, now, max(then - at, 1e-3))
                live.update(shown, refresh=True)
                before, at = now, then
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def rates(before: dict[str, Any] | None, now: dict[str, Any] | None, seconds: float) -> str:
    """What clipd did between two looks, a second."""
    if now is None:
        return "clipd does not run"
    new = now.get("store", {})
    old = (before or {}).get("store", {})
    if before is None or before.get("server", {}).get("pid") != now.get("server", {}).get("pid"):
        old = {}  # another server counts from zero

    def rate(key: str) -> float:
        return float(new.get(key, 0) - old.get(key, 0)) / seconds

    waits = new.get("waits", 0) - old.get("waits", 0)
    spent = new.get("wait_seconds", 0.0) - old.get("wait_seconds", 0.0)
    parts = [
        f"reads {rate('hits') + rate('waits'):.0f}/s",
        f"waits {rate('waits'):.0f}/s" + (f" of {1000 * spent / waits:.0f} ms" if waits else ""),
        f"fetched {size(rate('fetched_bytes'))}/s in {rate('requests'):.1f} requests/s",
        f"retries {rate('retries'):.1f}/s",
        f"errors {rate('failures'):.1f}/s",
        f"store {size(new.get('used_bytes', 0))}",
    ]
    return "  ".join(parts)


def page(
    settings: Settings, before: dict[str, Any] | None, now: dict[str, Any] | None, seconds: float
) -> Any:
    """What is on the screen: clipd's processes, the rates, a table of containers."""
    from rich.console import Group
    from rich.table import Table

    from clip_runc.cli.ps import amount, share
    from clip_runc.telemetry.collect import process
    from clip_runc.telemetry.containers import views

    rows = Table(box=None, pad_edge=False)
    for name in ("id", "image", "mode"):
        rows.add_column(name, overflow="fold")
    for name in ("lazy", "written", "fetched"):
        rows.add_column(name, justify="right")
    for one in views(settings, now):
        image = one.reference or one.state.image[:12]
        values = share(one.lazy), amount(one.upper), amount(one.fetched)
        rows.add_row(one.state.id or one.state.key, image, one.state.mode, *values)
    names = []
    for name in ("supervisor", "keeper", "server"):
        pid = (now or {}).get(name, {}).get("pid", 0)
        usage = process(pid) if pid else None
        if usage is not None:
            names.append(f"{name} {pid} {size(usage[0])}")
    return Group("  ".join(names), rates(before, now, seconds), "", rows)
