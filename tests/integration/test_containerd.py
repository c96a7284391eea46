"""containerd starts containers through clip-runc, and its ordinary images go on working."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine, mounts_below
from tests.integration.cri import Cri
from tests.integration.daemons import Containerd
from tests.integration.prerequisites import need


def test_ctr_run_with_our_binary(
    containerd: Containerd, clip: ClipMachine, debian_ref: str, plain_ref: str
) -> None:
    """``ctr run --runc-binary``: the annotation's image, lazily, not the one that was pulled."""
    clip.index(debian_ref)
    assert containerd.ctr("image", "pull", "--plain-http", plain_ref).returncode == 0
    done = containerd.ctr(
        "run", "--rm", "--runc-binary", str(clip.runtime),
        "--annotation", f"dev.clip-runc.image={debian_ref}",
        plain_ref, "lazy", "python3", "-c", "import sys; print(sys.version_info[:2])",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "(3, 11)\n"), done.stderr + containerd.tail()
    assert clip.containers_left() == []
    assert not _shims_mounts(containerd)


def test_ctr_with_an_ordinary_image(
    containerd: Containerd, clip: ClipMachine, plain_ref: str
) -> None:
    """No annotation: the image that containerd unpacked, through the same binary."""
    assert containerd.ctr("image", "pull", "--plain-http", plain_ref).returncode == 0
    done = containerd.ctr(
        "run", "--rm", "--runc-binary", str(clip.runtime),
        plain_ref, "ordinary", "cat", "/srv/data/a",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert not mounts_below(clip.run_dir)


def test_ctr_task_detached_then_removed(
    containerd: Containerd, clip: ClipMachine, debian_ref: str, plain_ref: str
) -> None:
    clip.index(debian_ref)
    assert containerd.ctr("image", "pull", "--plain-http", plain_ref).returncode == 0
    done = containerd.ctr(
        "run", "--detach", "--runc-binary", str(clip.runtime),
        "--annotation", f"dev.clip-runc.image={debian_ref}",
        plain_ref, "stays", "sleep", "1000",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = containerd.ctr("task", "exec", "--exec-id", "e1", "stays", "cat", "/etc/debian_version")
    assert done.stdout.startswith("12"), done.stderr
    assert clip.containers_left()
    assert containerd.ctr("task", "kill", "--signal", "SIGKILL", "stays").returncode == 0
    end = time.monotonic() + 30
    while containerd.ctr("task", "delete", "stays").returncode and time.monotonic() < end:
        time.sleep(0.1)
    assert containerd.ctr("container", "delete", "stays").returncode == 0
    assert clip.containers_left() == []


def test_ctr_reports_what_we_report(
    containerd: Containerd, clip: ClipMachine, plain_ref: str
) -> None:
    """A failure of ours reaches ctr's user through runc's --log."""
    assert containerd.ctr("image", "pull", "--plain-http", plain_ref).returncode == 0
    done = containerd.ctr(
        "run", "--rm", "--runc-binary", str(clip.runtime),
        "--annotation", "dev.clip-runc.image=oci:/tmp/local", plain_ref, "wrong",
    )  # fmt: skip
    assert done.returncode != 0
    assert "oci:/tmp/local" in done.stderr
    assert "registry reference" in done.stderr
    assert clip.containers_left() == []
    containerd.ctr("container", "delete", "wrong")


def _shims_mounts(containerd: Containerd) -> list[str]:
    return [one for one in mounts_below(containerd.directory) if "/rootfs" in one]


@pytest.fixture
def node(clip: ClipMachine, plain_ref: str) -> Iterator[Containerd]:
    """A containerd with CRI whose config.toml has clip-runc as the runtime's ``BinaryName``."""
    need("containerd", "curl")
    daemon = Containerd(
        clip.directory / "node", pause=plain_ref, binary=str(clip.runtime), environ=clip.environ
    )
    yield daemon
    daemon.stop()


@pytest.fixture
def kubelet(node: Containerd, clip: ClipMachine) -> Cri:
    return Cri(node.socket, clip.directory / "pods")


def _output(kubelet: Cri, container: str, pod: str) -> str:
    end = time.monotonic() + 60
    while kubelet.exited(container) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert kubelet.exited(container) == 0
    log = kubelet.logs / f"{pod}.log"
    return "".join(line.split(" ", 3)[3] + "\n" for line in log.read_text().splitlines())


def test_pod_with_our_annotation(
    kubelet: Cri, node: Containerd, clip: ClipMachine, debian_ref: str, plain_ref: str
) -> None:
    """BinaryName in config.toml: the pod's container is the lazy image, its pause ordinary."""
    clip.index(debian_ref)
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("lazy")
    container = kubelet.create(
        sandbox, "lazy", plain_ref, ["/usr/local/bin/hello"], {"dev.clip-runc.image": debian_ref}
    )
    kubelet.start(container)
    assert json.loads(_output(kubelet, container, "lazy")) == {"hello": "clip-runc"}
    kubelet.remove(container)
    kubelet.remove_sandbox(sandbox)
    assert clip.containers_left() == []


def test_pod_of_an_ordinary_image(
    kubelet: Cri, node: Containerd, clip: ClipMachine, plain_ref: str
) -> None:
    """An image without an index goes the usual way, annotated with its name as it is."""
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("usual")
    container = kubelet.create(sandbox, "usual", plain_ref, ["cat", "/srv/data/a"])
    kubelet.start(container)
    assert _output(kubelet, container, "usual") == "one\n"
    assert not mounts_below(clip.run_dir)
    kubelet.remove(container)
    kubelet.remove_sandbox(sandbox)


def test_pod_of_an_image_that_is_indexed(
    kubelet: Cri, node: Containerd, clip: ClipMachine, plain_ref: str
) -> None:
    """CRI's own annotation names an image that has an index here: it is used."""
    clip.index(plain_ref)
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("indexed")
    container = kubelet.create(
        sandbox, "indexed", plain_ref, ["grep", " / / ", "/proc/self/mountinfo"]
    )
    kubelet.start(container)
    line = _output(kubelet, container, "indexed")
    assert str(clip.state) in line
    kubelet.remove(container)
    kubelet.remove_sandbox(sandbox)
    assert clip.containers_left() == []


def _log(kubelet: Cri, pod: str) -> list[str]:
    """What the container wrote, stream and text, as the kubelet reads it."""
    lines = (kubelet.logs / f"{pod}.log").read_text().splitlines()
    return [" ".join(line.split(" ", 3)[1::2]) for line in lines]


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_pod_from_its_start_to_its_end(
    kubelet: Cri, node: Containerd, clip: ClipMachine, debian_ref: str, plain_ref: str
) -> None:
    """run, exec, logs, stats, stop, restart, kill, remove, with clip-runc as a named handler."""
    clip.index(debian_ref)
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("life", handler="clip")
    script = "echo up; echo err >&2; trap 'exit 5' TERM; while :; do sleep 0.05; done"
    arguments = (sandbox, "life", plain_ref, ["/bin/sh", "-c", script])
    lazy = {"dev.clip-runc.image": debian_ref}

    container = kubelet.create(*arguments, lazy)
    assert kubelet.exited(container) is None
    kubelet.start(container)
    _until(lambda: sorted(_log(kubelet, "life")) == ["stderr err", "stdout up"])
    assert kubelet.execute_code(container, ["/usr/local/bin/hello"])[0] == 0
    code = kubelet.execute_code(container, ["sh", "-c", "echo out; echo bad >&2; exit 7"])
    assert code == (7, "out\n", "bad\n")
    _until(lambda: min(kubelet.usage(container)) > 0)
    kubelet.stop(container, 30)
    assert kubelet.exited(container) == 5
    kubelet.remove(container)
    assert clip.containers_left() == []

    again = kubelet.create(*arguments, lazy, attempt=1)
    kubelet.start(again)
    _until(lambda: _log(kubelet, "life").count("stdout up") == 2)
    assert kubelet.execute(again, ["cat", "/etc/debian_version"]).startswith("12")
    assert node.ctr("--namespace", "k8s.io", "task", "kill", "-s", "9", again).returncode == 0
    _until(lambda: kubelet.exited(again) is not None)
    assert kubelet.exited(again) == 137
    kubelet.remove(again)
    kubelet.remove_sandbox(sandbox)
    assert clip.containers_left() == []
    assert not _shims_mounts(node)


def test_the_default_handler_is_not_ours(
    kubelet: Cri, node: Containerd, clip: ClipMachine, debian_ref: str, plain_ref: str
) -> None:
    """A pod without the runtime class: runc itself, whatever its annotations say."""
    clip.index(debian_ref)
    kubelet.pull(plain_ref)
    sandbox = kubelet.run_sandbox("other", handler="")
    container = kubelet.create(
        sandbox, "other", plain_ref, ["cat", "/srv/data/a"], {"dev.clip-runc.image": debian_ref}
    )
    kubelet.start(container)
    assert _output(kubelet, container, "other") == "one\n"
    assert not mounts_below(clip.run_dir)
    kubelet.remove(container)
    kubelet.remove_sandbox(sandbox)


def test_config_toml_of_the_readme_is_the_one_tested() -> None:
    """The README's snippet has the keys that the tests' configuration has."""
    readme = Path(__file__).resolve().parent.parent.parent / "README.md"
    text = readme.read_text()
    assert 'runtime_type = "io.containerd.runc.v2"' in text
    assert "BinaryName" in text
