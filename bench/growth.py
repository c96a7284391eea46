"""Does clipd grow?  Crowds of containers of several images come and go; see bench/growth."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory

from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import write_image, write_layer
from tests.integration.pushing import push
from tests.integration.test_churn import Crowd, content, memory

IMAGES = 5
BUSYBOX = Path("/bin/busybox")
MB = 1e6


def images(registry: DockerRegistry, path: Path) -> list[str]:
    """Images of one layer in common and one of their own."""
    common = write_layer(path, [tar([entry("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)])])
    found = []
    for number in range(IMAGES):
        own = write_layer(path, [tar([entry("data", content(number))])])
        image = write_image(path, [common, own], {"Cmd": ["/bin/busybox", "sleep", "3600"]})
        found.append(push(image, registry.host, f"growth/n{number}", "1"))
    return found


def cycle(crowd: Crowd, machine: ClipMachine, number: int) -> None:
    """All start, read and stop; every fifth time the store is emptied: all is fetched anew."""
    crowd.each(crowd.start)
    crowd.each(crowd.read)
    crowd.each(crowd.stop)
    crowd.forget()
    if number % 5 == 4:
        machine.ctl("gc")
        machine.ctl("store", "prune")


def report(samples: list[tuple[float, float]], cycles: int) -> None:
    """A line of least squares through the second half: the first fills caches."""
    later = samples[len(samples) // 2 :]
    slope, _ = linear_regression([at for at, _ in later], [size for _, size in later])
    print(
        f"{cycles} cycles, {samples[-1][0] / 60:.0f} minutes: {samples[0][1]:.1f} MB at first, "
        f"{samples[-1][1]:.1f} at the end, {slope * 3600:+.2f} MB an hour in the second half"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--containers", type=int, default=20)
    options = parser.parse_args()
    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory(prefix="clip-bench-", dir="/var/tmp")))
        registry = DockerRegistry(path / "registry")
        stack.callback(registry.stop)
        (path / "indexes").mkdir()
        references = images(registry, path / "images")
        machine = ClipMachine(path, path / "indexes", image_linger=5)
        stack.callback(machine.sweep)
        chosen = {
            f"c{n}": (references[n % IMAGES], content(n % IMAGES))
            for n in range(options.containers)
        }
        crowd = Crowd(machine, chosen)
        began = printed = time.monotonic()
        samples: list[tuple[float, float]] = []
        cycles = 0
        while time.monotonic() - began < 60 * options.minutes:
            cycle(crowd, machine, cycles)
            cycles += 1
            found = memory(machine)
            samples.append((time.monotonic() - began, sum(found.values()) / MB))
            if time.monotonic() - printed >= 60:
                printed = time.monotonic()
                parts = ", ".join(f"{role} {size / MB:.1f}" for role, size in found.items())
                print(
                    f"{samples[-1][0] / 60:5.1f} min {samples[-1][1]:7.1f} MB: {parts}", flush=True
                )
        report(samples, cycles)


if __name__ == "__main__":
    main()
