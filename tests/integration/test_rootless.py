"""clip-runc for an ordinary user: podman's namespaces, ones of our own, and none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.busybox_images import CONTENT, EXPECTED, HIDDEN
from tests.integration.daemons import wait_for
from tests.integration.ordinary_user import SUBORDINATE, UID, OrdinaryUser
from tests.integration.prerequisites import need

CONFINED = "CapEff:\t0000000000000000"


@pytest.fixture
def user_with(scratch: Path) -> Iterator[Callable[..., OrdinaryUser]]:
    """An ordinary user; call it with what ``OrdinaryUser`` takes."""
    need("root", "fuse", "overlay", "runc", "newuidmap", "setpriv")
    scratch.chmod(0o711)
    users: list[OrdinaryUser] = []

    def make(ids: int = 65536) -> OrdinaryUser:
        users.append(OrdinaryUser(scratch, ids))
        return users[-1]

    yield make
    left = []
    for user in users:
        print(user.logs())
        left += user.sweep()
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def user(user_with: Callable[..., OrdinaryUser]) -> OrdinaryUser:
    return user_with()


@pytest.fixture
def podman(user: OrdinaryUser, plain_ref: str, busybox_ref: str) -> OrdinaryUser:
    """A user whose podman has an ordinary image, and who has an index of ours."""
    need("podman")
    user.podman("pull", "--quiet", "--tls-verify=false", plain_ref, check=True)
    user.ctl("index", "--quiet", busybox_ref, check=True)
    return user


def run(image: str, *arguments: str) -> list[str]:
    """The end of a podman command line: a container of ``image``, options first."""
    lazy = ["--annotation", f"dev.clip-runc.image={image}"] if image else []
    return ["run", "--network", "none", *lazy, "--entrypoint", "sh", *arguments]


def clipd(user: OrdinaryUser) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(user.ctl("status", "--json", check=True).stdout)
    return found


def test_podman_runs_an_image_lazily(
    podman: OrdinaryUser, plain_ref: str, busybox_ref: str
) -> None:
    """Output, exit code, the image's files, and an overlay that podman would not have made."""
    for image in (busybox_ref, ""):
        done = podman.podman(
            *run(image, "--rm"), plain_ref,
            "-c", "awk '$5 == \"/\"' /proc/self/mountinfo; cat /srv/data/a; echo err >&2; exit 7",
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (7, "err\n"), done.stderr
        mount, content = done.stdout.splitlines()
        assert (f"{podman.state}/containers/" in mount and "userxattr" in mount) is bool(image)
        assert content == "one"
    assert podman.containers_left() == []


def test_what_the_image_has_is_what_the_container_sees(
    podman: OrdinaryUser, plain_ref: str, busybox_ref: str
) -> None:
    """Types, modes and owners; who is not mapped is nobody.  Then written over, and read again."""
    look = "cd /; stat -c '%f %u %g %n' " + " ".join(EXPECTED)
    hidden = " ".join(HIDDEN)
    write = (
        "rm -rf srv/data; mkdir srv/data; ls -A srv/data; echo new > srv/data/a; cat srv/data/a;"
        "chmod 600 srv/opaque/new; mv srv/becomes-dir srv/moved; cat srv/moved/inner; rm srv/pipe;"
        "ls srv/pipe; chown 5:6 srv/attributed; stat -c '%u %g' srv/attributed"
    )
    script = f"{look}; ls -d {hidden}; {write}"
    done = podman.podman(*run(busybox_ref, "--rm"), "--user", "root", plain_ref, "-c", script)
    lines = done.stdout.splitlines()
    seen = {}
    for line in lines[: len(EXPECTED)]:
        mode, uid, gid, name = line.split()
        seen[name] = (int(mode, 16), int(uid), int(gid))
    nobody = {"srv/owned": (EXPECTED["srv/owned"][0], 65534, 65534)}
    assert seen == {**EXPECTED, **nobody}
    assert lines[len(EXPECTED) :] == ["new", "inner", "5 6"], done.stderr
    missing = [line for line in done.stderr.splitlines() if line.startswith("ls: ")]
    assert len(missing) == len(HIDDEN) + 1, done.stderr


def test_exec_stop_start_and_remove(podman: OrdinaryUser, plain_ref: str, busybox_ref: str) -> None:
    podman.podman(
        *run(busybox_ref, "--detach", "--name", "c1"), "--user", "root",
        plain_ref, "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done", check=True,
    )  # fmt: skip
    done = podman.podman("exec", "c1", "sh", "-c", "cat /srv/data/a; exit 4")
    assert (done.returncode, done.stdout) == (4, "one\n"), done.stderr
    (row,) = json.loads(podman.ctl("ps", "--json", check=True).stdout)
    assert row["mode"] == "tree"
    podman.podman("stop", "--time", "30", "c1", check=True)
    wait_for(lambda: not podman.containers_left(), "the container to be taken down")
    podman.podman("start", "c1", check=True)
    assert podman.podman("exec", "c1", "cat", "/srv/data/a", check=True).stdout == "one\n"
    podman.podman("rm", "--force", "--time", "0", "c1", check=True)
    wait_for(lambda: not podman.containers_left(), "the container to be taken down")


def test_another_mapping_of_ids(podman: OrdinaryUser, plain_ref: str, busybox_ref: str) -> None:
    """``--userns``: the image is mounted once more for the container's own namespace."""
    done = podman.podman(
        *run(busybox_ref, "--rm", "--userns", "keep-id"), plain_ref,
        "-c", "id -u; stat -c %u /srv/data/a; cat /srv/data/a",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{UID}\n0\none\n"), done.stderr
    assert podman.containers_left() == []


def test_the_server_has_ids_of_its_own(
    podman: OrdinaryUser, plain_ref: str, busybox_ref: str
) -> None:
    """A subordinate one, no capability; and nothing of ours is for others to open."""
    podman.podman(*run(busybox_ref, "--rm"), plain_ref, "-c", ":", check=True)
    status = Path(f"/proc/{clipd(podman)['server']['pid']}/status").read_text()
    uids = set(re.findall(r"\nUid:\t(.*)", status)[0].split())
    assert uids == {str(SUBORDINATE + 61217 - 1)}
    assert CONFINED in status and "NoNewPrivs:\t1" in status
    (socket,) = podman.xdg.glob("clip-runc/*/control/clipd.sock")
    for path, mode in ((socket, 0o600), (socket.parent, 0o700)):
        found = path.stat()
        assert (found.st_mode & 0o777, found.st_uid) == (mode, UID), path
    secure = podman.ctl("doctor", "--security")
    assert "✗" not in secure.stdout and "uid 61217, no capability" in secure.stdout, secure.stdout


def test_a_server_that_is_killed_costs_no_reader(
    podman: OrdinaryUser, plain_ref: str, busybox_ref: str
) -> None:
    script = (
        "n=0; while [ ! -e /stop ]; do sha256sum /srv/data/big || exit 1; "
        "echo 3 2>/dev/null >/proc/sys/vm/drop_caches; n=$((n+1)); done; echo rounds $n"
    )
    podman.podman(
        *run(busybox_ref, "--detach", "--name", "c1"), "--user", "root",
        plain_ref, "-c", script, check=True,
    )  # fmt: skip
    for _ in range(5):
        killed = clipd(podman)["server"]["pid"]
        os.kill(killed, signal.SIGKILL)
        Path("/proc/sys/vm/drop_caches").write_text("1")
        wait_for(lambda: clipd(podman)["server"]["pid"] not in (0, killed), "another server")  # noqa: B023  # called at once
    podman.podman("exec", "c1", "touch", "/stop", check=True)
    assert podman.podman("wait", "c1", check=True).stdout == "0\n"
    lines = podman.podman("logs", "c1", check=True).stdout.splitlines()
    wanted = hashlib.sha256(CONTENT["big"]).hexdigest()
    assert {line.split()[0] for line in lines[:-1]} == {wanted} and len(lines) > 5
    podman.podman("rm", "c1", check=True)


def test_all_of_clipd_killed(podman: OrdinaryUser, plain_ref: str, busybox_ref: str) -> None:
    """Nobody holds the mount: the container is removed all the same, and the next one works."""
    podman.podman(
        *run(busybox_ref, "--detach", "--name", "c1"), "--user", "root",
        plain_ref, "-c", "sleep 1000", check=True,
    )  # fmt: skip
    before = clipd(podman)
    for role in ("keeper", "supervisor", "server"):
        os.kill(before[role]["pid"], signal.SIGKILL)
    podman.podman("rm", "--force", "--time", "0", "c1", check=True)
    wait_for(lambda: not podman.containers_left(), "the container to be taken down")
    command = [*run(busybox_ref, "--rm"), plain_ref, "-c", "cat /srv/data/a"]
    assert podman.podman(*command, check=True).stdout == "one\n"
    assert podman.containers_left() == []


def test_podmans_namespaces_made_anew(
    podman: OrdinaryUser, plain_ref: str, busybox_ref: str
) -> None:
    """Mounts and clipd of the old ones are of no use there; what was fetched is."""
    command = [*run(busybox_ref, "--rm"), plain_ref, "-c", "cat /srv/data/a"]
    podman.podman(*command, check=True)
    (old,) = podman.xdg.glob("clip-runc/mnt-*")
    before = clipd(podman)
    podman.podman("system", "migrate", check=True)
    assert podman.podman(*command, check=True).stdout == "one\n"
    (new,) = {*podman.xdg.glob("clip-runc/mnt-*")} - {old}
    assert clipd(podman)["supervisor"] != before["supervisor"], "podman's is the one to talk to"
    assert podman.ctl("gc", check=True).stdout == "nothing to do\n", "a clipd lives there"
    for role in ("keeper", "supervisor", "server"):
        os.kill(before[role]["pid"], signal.SIGKILL)
    wait_for(lambda: "a namespace that is gone" in podman.ctl("gc").stdout, "it to be removed")
    assert [*podman.xdg.glob("clip-runc/*")] == [new]


def test_a_clipd_that_runs_before_podmans_containers(
    podman: OrdinaryUser, plain_ref: str, busybox_ref: str
) -> None:
    """As a unit of the user's systemd starts it; conmon then has no daemon to wait for."""
    program = "from clip_runc.fs.supervisor import main; main()"
    clipd_argv = podman.argv(
        "podman", "unshare", podman.python, "-c", program,
        env={"PYTHONPATH": f"{podman.directory}/repository"},
    )  # fmt: skip
    with subprocess.Popen(clipd_argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(lambda: podman.ctl("status").stdout.startswith("supervisor"), "clipd", 60)
        pid = clipd(podman)["supervisor"]["pid"]
        command = [*run(busybox_ref, "--rm"), plain_ref, "-c", "cat /srv/data/a"]
        assert podman.podman(*command, check=True).stdout == "one\n"
        assert clipd(podman)["supervisor"]["pid"] == pid
        podman.ctl("stop", check=True)
        assert process.wait(30) == 0


def test_podman_knows_it_by_name(podman: OrdinaryUser, plain_ref: str, busybox_ref: str) -> None:
    """The user's own containers.conf, and what ``doctor`` says of it."""
    lines = podman.ctl("doctor", "--no-self-test").stdout.splitlines()
    assert "! podman: clip-runc is no runtime of it" in lines
    file = podman.home / ".config/containers/containers.conf"
    file.parent.mkdir(parents=True)
    file.write_text(f'[engine.runtimes]\nclip-runc = ["{podman.runtime}"]\n')
    lines = podman.ctl("doctor", "--no-self-test").stdout.splitlines()
    assert f"✓ podman: --runtime clip-runc is {podman.runtime}" in lines
    command = ["podman", "--cgroup-manager", "cgroupfs", "--runtime", "clip-runc"]
    lazy = run(busybox_ref, "--rm")
    done = podman.call(*command, *lazy, plain_ref, "-c", "cat /srv/data/a", check=True)
    assert done.stdout == "one\n"


CONTAINERD = """
set -eu
rm -f /run/containerd
mkdir /run/containerd
containerd -c "$1/config.toml" >"$1/log" 2>&1 </dev/null &
daemon=$!
trap 'kill $daemon; wait' EXIT
while [ ! -S "$1/s" ]; do sleep 0.1; done
ctr="ctr --address $1/s"
$ctr image pull --plain-http "$2" >/dev/null
# what ctr wants of cgroups an ordinary user cannot have in v1
run="$ctr run --rm --cpu-shares 0 --cgroup= --runc-binary $4"
$run "$2" ordinary cat /srv/data/a
$run --annotation "dev.clip-runc.image=$3" "$2" lazy grep ' / / ' /proc/self/mountinfo
"""
CONTAINERD_CONFIG = """
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper"]
root = "{0}/root"
state = "{0}/state"
[grpc]
  address = "{0}/s"
[ttrpc]
  address = "{0}/t"
"""


def test_containerd_in_rootlesskit(user: OrdinaryUser, plain_ref: str, busybox_ref: str) -> None:
    """As containerd-rootless.sh of nerdctl does it; clipd is one of its namespace."""
    need("containerd", "rootlesskit")
    place = user.home / "c"
    place.mkdir()
    (place / "config.toml").write_text(CONTAINERD_CONFIG.format(place))
    os.chown(place, UID, UID)
    user.ctl("index", "--quiet", busybox_ref, check=True)
    done = user.call(
        "timeout", "100", "rootlesskit", "--net=host", "--copy-up=/run",
        "sh", "-c", CONTAINERD, "sh", place, plain_ref, busybox_ref, user.runtime, check=True,
    )  # fmt: skip
    content, mount = done.stdout.splitlines()
    assert content == "one" and f"{user.state}/containers/lazy-" in mount
    assert user.containers_left() == []


def test_without_podman(user: OrdinaryUser, busybox_ref: str) -> None:
    """``clipctl`` makes a namespace; those that come later find it, as long as clipd lives."""
    command = ["run", "--rm", "--user", "root", busybox_ref, "cat /proc/self/uid_map /srv/data/a"]
    done = user.ctl(*command, check=True)
    *ids, content = done.stdout.splitlines()
    assert [line.split() for line in ids] == [
        ["0", str(UID), "1"], ["1", str(SUBORDINATE), "65536"]
    ]  # fmt: skip
    assert content == "one" and user.containers_left() == []
    first = clipd(user)["supervisor"]["pid"]
    user.ctl(*command, check=True)
    assert clipd(user)["supervisor"]["pid"] == first
    assert len(list(user.xdg.glob("clip-runc/*"))) == 1


def test_with_one_id(user_with: Callable[..., OrdinaryUser], busybox_ref: str) -> None:
    """No subordinate ids: the server stays who it is, and gives up the rest."""
    user = user_with(ids=0)
    done = user.ctl("run", "--rm", "--user", "root", busybox_ref, "cat /proc/self/uid_map")
    assert (done.returncode, done.stdout.split()) == (0, ["0", str(UID), "1"]), done.stderr
    assert "a user namespace of one id, as /etc/subuid" in done.stderr
    status = Path(f"/proc/{clipd(user)['server']['pid']}/status").read_text()
    assert f"\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
    assert CONFINED in status and "CapBnd:\t0000000000000000" in status
    assert "one id is mapped" in user.ctl("doctor", "--no-self-test").stdout


def test_by_hand(user: OrdinaryUser, busybox_ref: str) -> None:
    """Outside of a namespace the reason is said; inside ``clipctl unshare`` it works."""
    user.ctl("bundle", "--user", "root", busybox_ref, "b", "cat /srv/data/a", check=True)
    before = (user.home / "b/config.json").read_bytes()
    done = user.call(user.runtime, "run", "--bundle", "b", f"c{UID}")
    assert done.returncode == 1 and done.stdout == ""
    assert f"user {UID} may mount nothing" in done.stderr and "clipctl unshare" in done.stderr
    assert "Traceback" not in done.stderr and user.containers_left() == []
    done = user.ctl("unshare", user.runtime, "run", "--bundle", "b", f"c{UID}")
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert user.containers_left() == []
    assert (user.home / "b/config.json").read_bytes() == before


def test_other_bundles_pass_through(user: OrdinaryUser) -> None:
    """An ordinary user's runc without an image of ours: its own bytes."""
    rootfs = user.home / "plain/rootfs/bin"
    rootfs.mkdir(parents=True)
    (rootfs / "sh").write_bytes(Path("/bin/busybox").read_bytes())
    (rootfs / "sh").chmod(0o755)
    for path in (user.home / "plain", *user.home.glob("plain/**/*")):
        os.chown(path, UID, UID)
    user.call("runc", "spec", "--rootless", "--bundle", "plain", check=True)
    spec = json.loads((user.home / "plain/config.json").read_text())
    spec["process"].update(args=["sh", "-c", "echo in; exit 5"], terminal=False)
    (user.home / "plain/config.json").write_text(json.dumps(spec))
    said = []
    for program in ("runc", user.runtime):
        done = user.call(program, "run", "--bundle", "plain", f"c{UID}")
        said.append((done.returncode, done.stdout, done.stderr))
    assert said[0] == said[1] and said[0][:2] == (5, "in\n"), said


def test_settings_of_the_user(user: OrdinaryUser, busybox_ref: str) -> None:
    """``~/.config`` counts, and so does XDG_CONFIG_HOME; EROFS is refused with the reason."""
    user.configure(layer_mode="erofs")
    done = user.ctl("run", "--rm", busybox_ref, "true")
    assert done.returncode == 1
    assert "does not work in a user namespace: EROFS is" in done.stderr
    assert user.containers_left() == []
    elsewhere = user.home / "elsewhere"
    user.configure(elsewhere, state_dir=str(user.home / "own"))
    done = user.ctl("config", "show", "--json", env={"XDG_CONFIG_HOME": str(elsewhere)})
    found = json.loads(done.stdout)
    assert found["state_dir"]["value"] == str(user.home / "own")
    assert found["layer_mode"]["value"] == "auto"


def test_without_a_user_namespace(user: OrdinaryUser, busybox_ref: str) -> None:
    """What needs one says what may forbid it; an index can be made all the same."""
    need("strace")
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=unshare"]
    strace += ["-e", "inject=unshare:error=EPERM"]
    environ = {"PYTHONPATH": f"{user.directory}/repository"}
    done = []
    for command in (("run", busybox_ref), ("doctor", "--no-self-test"), ("index", busybox_ref)):
        argv = [*strace, user.python, "-m", "clip_runc.cli.main", *command]
        done.append(user.call(*argv, env=environ))
    assert done[0].returncode == 1 and "kernel.unprivileged_userns_clone" in done[0].stderr
    failures = [line for line in done[1].stdout.splitlines() if line.startswith("✗")]
    assert [line.partition(":")[0] for line in failures] == ["✗ user namespace"]
    assert done[2].returncode == 0 and user.state.is_dir()


def test_without_a_runtime_directory(user: OrdinaryUser, busybox_ref: str) -> None:
    """Neither XDG_RUNTIME_DIR nor one of logind's: said in a line."""
    done = user.ctl("run", busybox_ref, "true", env={"XDG_RUNTIME_DIR": ""})
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"/run/user/{UID}" in line and "XDG_RUNTIME_DIR" in line
    assert user.containers_left() == []


def test_doctor(user: OrdinaryUser) -> None:
    """As an ordinary user: what works for them is tried, and nothing is left."""
    done = user.ctl("doctor")
    lines = done.stdout.splitlines()
    assert any(line.startswith("✓ user namespace: root of one with 65537 ids") for line in lines)
    assert any(line.startswith("✓ mode tree: indexed, mounted") for line in lines), done.stdout
    assert not any(line.startswith("✗") or "EROFS" in line for line in lines), done.stdout


def test_clipd_leaves_the_cgroup_as_far_as_it_may(user: OrdinaryUser, busybox_ref: str) -> None:
    """As systemd delegates one: a container's scope may end, and clipd is not in it."""
    root = _cgroup2()
    top = root / f"clip-test-{os.getpid()}"
    inner = top / "scope"
    inner.mkdir(parents=True)
    try:
        for path in (top, top / "cgroup.procs", inner, inner / "cgroup.procs"):
            os.chown(path, UID, UID)
        argv = user.argv(
            user.python, "-m", "clip_runc.cli.main", "run", "--rm", busybox_ref, "true",
            env={"PYTHONPATH": f"{user.directory}/repository"},
        )  # fmt: skip
        enter = f'echo $$ > {inner}/cgroup.procs; exec "$@"'
        subprocess.run(["sh", "-c", enter, "sh", *argv], check=True, stdin=subprocess.DEVNULL)
        for role in ("supervisor", "keeper", "server"):
            where = Path(f"/proc/{clipd(user)[role]['pid']}/cgroup").read_text()
            assert f"0::/{top.name}/clip-runc\n" in where, where
        user.ctl("stop", check=True)
    finally:
        end = time.monotonic() + 10
        while top.exists() and time.monotonic() < end:
            for path in (inner, top / "clip-runc", top):
                with contextlib.suppress(OSError):  # somebody has not left yet
                    path.rmdir()
            time.sleep(0.05)


def _cgroup2() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    pytest.fail("no cgroup2 is mounted")
