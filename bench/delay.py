"""A relay that adds latency: ``delay.py PORT TARGET_PORT MILLISECONDS``, all on any address.

For kernels without netem.  What comes in goes out half the milliseconds later, in both
directions, so a request and its answer take the whole; bandwidth is the link's own affair.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time

PIECE = 256 << 10
WAITING = 64


def relay(source: socket.socket, sink: socket.socket, seconds: float) -> None:
    """Copy until the end of the stream, each piece ``seconds`` late."""
    line: queue.Queue[tuple[float, bytes]] = queue.Queue(WAITING)

    def send() -> None:
        while True:
            due, data = line.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                source.close()
                return

    threading.Thread(target=send, daemon=True).start()
    try:
        while data := source.recv(PIECE):
            line.put((time.monotonic() + seconds, data))
    except OSError:
        data = b""
    line.put((time.monotonic() + seconds, b""))


def main() -> None:
    port, target, milliseconds = (int(word) for word in sys.argv[1:])
    listener = socket.create_server(("0.0.0.0", port), backlog=128)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", target))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((client, server), (server, client)):
            threading.Thread(target=relay, args=(*ends, milliseconds / 2000), daemon=True).start()


if __name__ == "__main__":
    main()
