"""The floor: how soon Redis itself has answered the questions of one sample of all streams.

One connection. XINFO STREAM and XINFO GROUPS of each stream and XINFO CONSUMERS of each group are encoded beforehand and
written as fast as the socket takes them, while the replies are drained and not looked at; an ECHO closes the batch, so that its
end is seen without counting. Nobody who asks these questions over one connection can have the answers sooner.
"""

import select
import socket
import time

from fill import SIZES, stream_name
from resp import encode
from usage import Cpu

END = b"the-end-of-the-batch"
# A server that is silent for so long will not answer any more.
TIMEOUT_MS = 60_000


def questions(size):
    streams, groups, _ = SIZES[size]
    for stream in map(stream_name, range(streams)):
        yield encode("XINFO", "STREAM", stream)
        yield encode("XINFO", "GROUPS", stream)
        for group in range(groups):
            yield encode("XINFO", "CONSUMERS", stream, "g%d" % group)


class Drain:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = memoryview(bytearray(1 << 20))
        self.poll = select.poll()

    def exchange(self, batch):
        out, sent, got, tail = memoryview(batch), 0, 0, b""
        end = b"$%d\r\n%b\r\n" % (len(END), END)
        self.poll.register(self.socket, select.POLLIN | select.POLLOUT)
        while True:
            events = self.poll.poll(TIMEOUT_MS)
            if not events:
                raise TimeoutError("Redis does not answer")
            if events[0][1] & select.POLLIN:
                count = self.socket.recv_into(self.buffer)
                if count == 0:
                    raise ConnectionError("Redis closed the connection")
                got += count
                tail = (tail + bytes(self.buffer[max(0, count - len(end)):count]))[-len(end):]
                if tail == end and sent == len(out):
                    return got
            if sent < len(out) and events[0][1] & select.POLLOUT:
                sent += self.socket.send(out[sent:sent + (1 << 18)])
                if sent == len(out):
                    self.poll.modify(self.socket, select.POLLIN)


def measure(redis, size, seconds, interval=0.0, idle_cpu=0.0):
    """One sample after the other, or one per `interval`; figures per sample. `idle_cpu` is what Redis uses in a second of
    doing nothing, which is not a sample's."""
    commands = list(questions(size))
    batch = b"".join(commands) + encode("ECHO", END)
    drain = Drain(redis.port)
    try:
        for _ in range(3):
            replied = drain.exchange(batch)
        times, cpu, began = [], Cpu(redis.pid), time.perf_counter()
        while len(times) < 5 or time.perf_counter() - began < seconds:
            if interval:
                time.sleep(interval - (time.perf_counter() - began) % interval)
            at = time.perf_counter()
            drain.exchange(batch)
            times.append(time.perf_counter() - at)
        wall = time.perf_counter() - began
        redis_cpu = cpu.seconds() - idle_cpu * wall
    finally:
        drain.socket.close()
    times.sort()
    return {"sample": times[len(times) // 2], "sample_least": times[0], "redis_cpu": max(redis_cpu, 0.0) / len(times),
            "commands": len(commands), "reply_bytes": replied, "samples": len(times)}
