"""``clipctl metrics``: what Prometheus reads, once or for every scrape."""

from __future__ import annotations

from pathlib import Path

import click

from clip_runc.config import load


@click.command("metrics")
@click.option("--serve", is_flag=True, help="Answer GET /metrics at a unix socket (0600).")
@click.option("--socket", "path", metavar="PATH", help="The socket [default: in run_dir].")
@click.option("--listen", metavar="HOST:PORT", help="Serve at a loopback address as well.")
@click.option("--dashboard", is_flag=True, help="Print a Grafana dashboard of these metrics.")
def command(serve: bool, path: str | None, listen: str | None, dashboard: bool) -> None:
    """Print metrics in Prometheus' text format, or serve them.

    Once, as for node_exporter's textfile collector; with --serve or --listen until it is ended.
    """
    from clip_runc.linux.files import make_private_dir
    from clip_runc.telemetry import serve as serving
    from clip_runc.telemetry.collect import Collector

    if dashboard:
        click.echo(dashboard_file().read_text(encoding="utf-8"), nl=False)
        return
    settings = load()
    collector = Collector(settings)
    if not serve and not listen:
        click.echo(collector.text(), nl=False)
        return
    listeners = [serving.port_listener(listen)] if listen else []
    if serve or path:
        if not path:
            make_private_dir(settings.run_dir, 0o711)
        listeners.append(serving.unix_listener(path or settings.metrics_socket))
    serving.serve(collector, listeners)


def dashboard_file() -> Path:
    """The dashboard, a file of the package."""
    from clip_runc import telemetry

    return Path(telemetry.__file__).parent / "grafana.json"
