"""As much of the kubelet as a test needs: Kubernetes' CRI v1 spoken to containerd by curl.

gRPC is HTTP/2 with five bytes before each message, and protobuf's wire format is tags and
lengths; both are shorter written down than a dependency and its generated stubs.  Field
numbers are from ``k8s.io/cri-api/pkg/apis/runtime/v1/api.proto``.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

Value = int | str | bytes | list["Value"] | dict[str, str]  # type: ignore[misc]  # recursive

NODE = 2  # NamespaceMode: the host's namespace


class CriError(RuntimeError):
    """The service answered with a gRPC status that is not 0."""


def varint(number: int) -> bytes:
    """Protobuf's base-128 integer."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(fields: Mapping[int, Value]) -> bytes:
    """Encode fields by number: integers, strings, nested messages (bytes), lists, string maps."""
    return b"".join(_field(number, value) for number, value in fields.items())


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, list):
        return b"".join(_field(number, one) for one in value)
    if isinstance(value, dict):
        return b"".join(_field(number, message({1: k, 2: v})) for k, v in value.items())
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Decode a message of integers and length-delimited fields: ``(number, value)``."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        else:
            length = number()
            yield tag >> 3, data[at : at + length]
            at += length


def text(data: bytes, wanted: int) -> str:
    """The string in the field ``wanted``."""
    for number, value in fields(data):
        if number == wanted and isinstance(value, bytes):
            return value.decode()
    return ""


def _bytes(data: bytes, wanted: int) -> bytes:
    """The message in the field ``wanted``."""
    found = dict(fields(data)).get(wanted, b"")
    assert isinstance(found, bytes)
    return found


class Cri:
    """The calls a kubelet makes for one pod with the node's network."""

    def __init__(self, socket: Path, logs: Path) -> None:
        self.socket = socket
        self.logs = logs

    def call(self, method: str, request: bytes) -> bytes:
        """One unary call.  Raises ``CriError``."""
        service = "ImageService" if "Image" in method else "RuntimeService"
        done = subprocess.run(
            [
                "curl", "--silent", "--show-error", "--http2-prior-knowledge",
                "--unix-socket", str(self.socket), "--include", "--max-time", "60",
                "--header", "content-type: application/grpc", "--header", "te: trailers",
                "--data-binary", "@-", f"http://localhost/runtime.v1.{service}/{method}",
            ],
            input=b"\0" + struct.pack(">I", len(request)) + request,
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        head, _, rest = done.partition(b"\r\n\r\n")
        size = struct.unpack(">I", rest[1:5])[0] if rest[:1] == b"\0" else 0
        body, trailers = rest[5 : 5 + size], head + b"\r\n" + rest[5 + size :]
        if b"grpc-status: 0" not in trailers:
            raise CriError(f"{method}: {trailers.decode(errors='replace')}")
        return body

    def pull(self, reference: str, auth: tuple[str, str] = ("", "")) -> None:
        """With ``auth``, user and password, as a kubelet hands a pull secret on."""
        login = message({1: auth[0], 2: auth[1]})
        self.call("PullImage", message({1: message({1: reference}), 2: login}))

    def _sandbox_config(self, name: str, annotations: dict[str, str]) -> bytes:
        namespaces = message({1: NODE, 2: 1, 3: 0})  # network, pid, ipc
        linux = message({2: message({1: namespaces})})
        metadata = message({1: name, 2: f"{name}-uid", 3: "default"})
        directory = str(self.logs)
        return message({1: metadata, 3: directory, 7: annotations, 8: linux})

    def run_sandbox(
        self, name: str, annotations: dict[str, str] | None = None, handler: str = "clip"
    ) -> str:
        """Start a pod in the host's network; its id.  ``handler`` is a runtime class's."""
        config = self._sandbox_config(name, annotations or {})
        return text(self.call("RunPodSandbox", message({1: config, 2: handler})), 1)

    def create(
        self,
        sandbox: str,
        pod: str,
        image: str,
        command: list[str],
        annotations: dict[str, str] | None = None,
        attempt: int = 0,
    ) -> str:
        """Make a container in the pod; its id.  Its output goes to ``logs/<pod>.log``.

        ``attempt`` is how often it was restarted.
        """
        metadata = message({1: "main", 2: attempt})
        network = message({3: message({1: NODE, 2: 1, 3: 0})})
        config = message(
            {
                1: metadata,
                2: message({1: image}),
                3: list(command),
                10: annotations or {},
                11: f"{pod}.log",
                15: message({2: network}),
            }
        )
        request = message({1: sandbox, 2: config, 3: self._sandbox_config(pod, {})})
        return text(self.call("CreateContainer", request), 1)

    def start(self, container: str) -> None:
        self.call("StartContainer", message({1: container}))

    def exited(self, container: str) -> int | None:
        """The exit code, or None while it runs."""
        reply = self.call("ContainerStatus", message({1: container}))
        status = next(value for number, value in fields(reply) if number == 1)
        assert isinstance(status, bytes)
        found = dict(fields(status))
        state = found.get(3, 0)  # CONTAINER_EXITED is 2
        code = found.get(7, 0)
        return int(code) if state == 2 and isinstance(code, int) else None  # type: ignore[call-overload]  # an int by isinstance

    def execute(self, container: str, command: list[str]) -> str:
        """Standard output of a command in the container."""
        reply = self.call("ExecSync", message({1: container, 2: list(command), 3: 30}))
        return text(reply, 1)

    def execute_code(self, container: str, command: list[str]) -> tuple[int, str, str]:
        """Exit code, output and errors of a command in the container."""
        reply = self.call("ExecSync", message({1: container, 2: list(command), 3: 30}))
        code = dict(fields(reply)).get(3, 0)
        assert isinstance(code, int)
        return code, text(reply, 1), text(reply, 2)

    def usage(self, container: str) -> tuple[int, int]:
        """Nanoseconds of processor time and bytes of memory (``ContainerStats``)."""
        reply = self.call("ContainerStats", message({1: container}))
        stats = dict(fields(_bytes(reply, 1)))
        found = []
        for number in (2, 3):  # CpuUsage and MemoryUsage: their second field is a UInt64Value
            usage = stats.get(number, b"")
            assert isinstance(usage, bytes)
            value = dict(fields(_bytes(usage, 2))).get(1, 0)
            assert isinstance(value, int)
            found.append(value)
        return found[0], found[1]

    def stop(self, container: str, seconds: int = 1) -> None:
        self.call("StopContainer", message({1: container, 2: seconds}))

    def remove(self, container: str) -> None:
        self.call("StopContainer", message({1: container, 2: 1}))
        self.call("RemoveContainer", message({1: container}))

    def remove_sandbox(self, sandbox: str) -> None:
        self.call("StopPodSandbox", message({1: sandbox}))
        self.call("RemovePodSandbox", message({1: sandbox}))
