"""Just enough of Redis's protocol for the benchmark: one socket, pipelined."""

import socket

# A server that is silent for so long will not answer any more.
TIMEOUT = 120.0
# Commands and bytes in flight: small enough that neither side's socket buffer can fill up while the other waits for it.
IN_FLIGHT, BYTES_IN_FLIGHT = 512, 1 << 20


def encode(*words):
    """One command as it goes over the wire."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(out)


class Refused(Exception):
    """What Redis says instead of an answer."""


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb", 1 << 18)

    def close(self):
        self.replies.close()
        self.socket.close()

    def read(self):
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise Refused(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else self.replies.read(length + 2)[:-2]
        if kind == b"*":
            length = int(rest)
            return None if length < 0 else [self.read() for _ in range(length)]
        raise ConnectionError("no reply begins like this: %r" % line[:40])

    def call(self, *words):
        self.socket.sendall(encode(*words))
        return self.read()

    def pipeline(self, commands):
        """Sends commands that are encoded already, and reads as many replies."""
        batch, size = [], 0
        for command in commands:
            batch.append(command)
            size += len(command)
            if size >= BYTES_IN_FLIGHT or len(batch) >= IN_FLIGHT:
                self._send(batch)
                batch, size = [], 0
        self._send(batch)

    def _send(self, batch):
        self.socket.sendall(b"".join(batch))
        for _ in batch:
            self.read()

    def info(self, section):
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def calls(self):
        """How often each command was called, as Redis counts: {command: calls}."""
        found = {}
        for key, value in self.info("commandstats").items():
            found[key[len("cmdstat_"):]] = int(value.split(",")[0].split("=")[1])
        return found
