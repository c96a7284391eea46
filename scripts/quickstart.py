"""The demonstration behind ``scripts/quickstart``, once everything is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from clip_runc.cli.console import size
from tests.integration.daemons import DockerRegistry, alive, listens, wait_for
from tests.integration.debian_images import debian
from tests.integration.image_maker import Image
from tests.integration.pushing import push

HOME = Path(os.environ.get("CLIP_DEMO_HOME", "/var/lib/clip-demo"))
PORT = int(os.environ.get("CLIP_DEMO_PORT", "5123"))
PIDFILE = HOME / "registry.pid"
CLIPCTL = [sys.executable, "-m", "clip_runc.cli.main"]
PACKAGES = ("python3", "build-essential")
PROGRAM = (
    "import json, platform, sys; "
    "print('Python', platform.python_version(), 'of', "
    "open('/etc/os-release').readline().split('\"')[1], 'says hello')"
)
console = Console(highlight=False)


def registry_pid() -> int | None:
    """The pid of our registry while it runs."""
    try:
        pid = int(PIDFILE.read_text())
        mine = str(HOME).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if mine and alive(pid) else None


def start_registry() -> str:
    """Start docker-registry unless it runs; its ``host:port``."""
    if registry_pid() is None:
        if listens(PORT):
            sys.exit(f"quickstart: port {PORT} is taken; choose one with CLIP_DEMO_PORT")
        daemon = DockerRegistry(HOME / "registry", PORT)
        PIDFILE.write_text(f"{daemon.pid}\n")
    return f"127.0.0.1:{PORT}"


def stop() -> None:
    """Stop the registry and clipd; files stay."""
    subprocess.run([*CLIPCTL, "stop"], check=False)
    pid = registry_pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid), "the end of docker-registry")
    PIDFILE.unlink(missing_ok=True)
    console.print(f"Stopped. {HOME} keeps the image, /var/lib/clip what was fetched.")


def fetched() -> int:
    """Bytes that clipd has fetched from registries since it started."""
    done = subprocess.run([*CLIPCTL, "status", "--json"], capture_output=True, check=False)
    status: dict[str, Any] = json.loads(done.stdout or b"{}")
    return int(status.get("fetched", 0))


def report(image: Image, index_size: int, moved: int, seconds: float) -> None:
    """The table at the end."""
    whole = image.compressed_size
    table = Table(title="What a start needed of the image", title_justify="left")
    table.add_column("")
    table.add_column("bytes", justify="right")
    table.add_column("of the image", justify="right")
    for number, layer in enumerate(image.layers, 1):
        table.add_row(f"layer {number} in the registry", size(layer.size), "")
    table.add_row("the image, as a pull moves it", size(whole), "100.0 %")
    table.add_row("index, made once", size(index_size), f"{index_size / whole:.1%}")
    table.add_row(
        "fetched by this container", size(moved), f"{moved / whole:.1%}", style="bold green"
    )
    console.print(table)
    console.print(f"From clipctl run to the end of the container: {seconds:.1f} s.")
    if not moved:
        console.print("Nothing had to be fetched: an earlier run left it in /var/lib/clip.")


def main() -> None:
    """Registry, image, index, container, table."""
    if sys.argv[1:] == ["--stop"]:
        return stop()
    HOME.mkdir(parents=True, exist_ok=True)
    host = start_registry()
    console.print(f"[bold]1.[/] docker-registry listens on {host}")
    with console.status("debootstrap makes a Debian image (a minute or two, only once)"):
        image = debian(HOME, PACKAGES)
        reference = push(image, host, "library/debian", "bookworm")
    console.print(f"[bold]2.[/] {reference}: {size(image.compressed_size)} in 3 layers")
    console.print(f"[bold]3.[/] clipctl index {reference}")
    index = HOME / "debian.clip"
    subprocess.run([*CLIPCTL, "index", "-o", index, reference], check=True)
    before = fetched()
    console.print(f"[bold]4.[/] clipctl run --rm {reference} python3 -c …")
    begin = time.monotonic()
    command = [*CLIPCTL, "run", "--rm", reference, "python3", "-c", PROGRAM]
    code = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - begin
    if code:
        sys.exit(code)
    report(image, index.stat().st_size, fetched() - before, seconds)
    if sys.argv[1:2] == ["--bundle"]:
        directory = sys.argv[2]
        bundle = [*CLIPCTL, "bundle", "--force", reference, directory, "python3", "-c", PROGRAM]
        subprocess.run(bundle, check=True)
    console.print(f"Try:  clipctl run --rm -t {reference} bash", soft_wrap=True)
    console.print("Stop: scripts/quickstart --stop")
    return None


if __name__ == "__main__":
    main()
