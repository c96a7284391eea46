"""A relay that adds latency: ``delay.py PORT TARGET_PORT MILLISECONDS``, all on any address.

For kernels without netem.  What comes in goes out half the milliseconds later, in both
directions, so a request and its answer take the whole; bandwidth is the link's own affair.
The bytes go through a pipe, by splice(2), and are not copied: this runs on the processors of whom
is measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import select
import socket
import sys
import threading
import time

PIPE = 1 << 20
WAITING = PIPE // 2
"""Bytes on their way with which nothing more is taken in: a full pipe is refilled page by page."""
PIECES = 64


class OneWay:
    """What ``source`` gives goes to ``sink``, each piece ``seconds`` late, until its end."""

    def __init__(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
        self._source, self._sink, self._seconds = source, sink, seconds
        self._line: queue.Queue[tuple[float, int]] = queue.Queue(PIECES)
        self._room = threading.Condition()
        self._waiting = 0
        self._out, self._into = os.pipe()
        fcntl.fcntl(self._into, fcntl.F_SETPIPE_SZ, PIPE)
        for work in (self._take, self._send):
            threading.Thread(target=work, daemon=True).start()

    def _take(self) -> None:
        readable = select.poll()
        readable.register(self._source, select.POLLIN)
        count = 1
        while count:
            with self._room:
                self._room.wait_for(lambda: self._waiting < WAITING)
            readable.poll()  # splice(2) would wait with the pipe locked, and nothing could leave it
            try:
                count = os.splice(self._source.fileno(), self._into, WAITING)
            except OSError:
                count = 0
            with self._room:
                self._waiting += count
            self._line.put((time.monotonic() + self._seconds, count))
        os.close(self._into)

    def _send(self) -> None:
        try:
            while True:
                due, count = self._line.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not count:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                while count:
                    sent = os.splice(self._out, self._sink.fileno(), count)
                    count -= sent
                    with self._room:
                        self._waiting -= sent
                        self._room.notify()
        except OSError:
            with contextlib.suppress(OSError):
                self._source.shutdown(socket.SHUT_RDWR)
        finally:
            os.close(self._out)
            with self._room:
                self._waiting = 0
                self._room.notify()


def main() -> None:
    port, target, milliseconds = (int(word) for word in sys.argv[1:])
    listener = socket.create_server(("0.0.0.0", port), backlog=128)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", target))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((client, server), (server, client)):
            OneWay(source, sink, milliseconds / 2000)


if __name__ == "__main__":
    main()
