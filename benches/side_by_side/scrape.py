"""The other side of /metrics: one client that reads pages, and wrk for many."""

import gzip
import re
import socket
import subprocess
import time

from usage import Cpu

# redis_exporter takes long where there are many clients.
TIMEOUT = 300
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Answer:
    """`body` as it came, in gzip where that was asked for; `headers` in lower case; `seconds` from the request to the end."""

    def __init__(self, body, headers, seconds):
        self.body, self.headers, self.seconds = body, headers, seconds

    def text(self):
        return (gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body).decode()


class Scraper:
    """Gets the page over one kept connection."""

    def __init__(self, port, packed=False):
        self.port, self.socket, self.buffer = port, None, memoryview(bytearray(1 << 20))
        accepts = "Accept-Encoding: gzip\r\n" if packed else ""
        self.request = ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n" % accepts).encode()

    def close(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def get(self):
        try:
            return self._get()
        except OSError:
            self.close()
            raise

    def _receive(self, pieces):
        count = self.socket.recv_into(self.buffer)
        if count == 0:
            raise ConnectionError("the connection was closed within an answer")
        pieces.append(bytes(self.buffer[:count]))
        return count

    def _get(self):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        self.socket.sendall(self.request)
        pieces = []
        while b"\r\n\r\n" not in b"".join(pieces):
            self._receive(pieces)
        head, _, rest = b"".join(pieces).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        if status.split()[1] != "200":
            raise ConnectionError("the answer is " + status)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        pieces = [rest]
        if "content-length" in headers:
            left = int(headers["content-length"]) - len(rest)
            while left > 0:
                left -= self._receive(pieces)
            body = b"".join(pieces)
        else:
            while not (b"\r\n" + b"".join(piece[-7:] for piece in pieces[-7:])).endswith(b"\r\n0\r\n\r\n"):
                self._receive(pieces)
            body = unchunked(b"".join(pieces))
        return Answer(body, headers, time.perf_counter() - began)

    def next_page(self, last, pause=0.001):
        """The first page that differs from `last`, as an `Answer`, and when its last byte came."""
        while True:
            answer = self.get()
            if answer.body != last:
                return answer, time.time()
            time.sleep(pause)


def unchunked(raw):
    pieces, at = [], 0
    while True:
        end = raw.index(b"\r\n", at)
        length = int(raw[at:end].split(b";")[0], 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(raw[end + 2:end + 2 + length])
        at = end + 2 + length + 2


def metric(text, series):
    """The value of this series, with its labels as they are on the page."""
    found = re.search(r"^%s (\S+)" % re.escape(series), text, re.M)
    if not found:
        raise SystemExit("there is no %s on the page" % series)
    return float(found.group(1))


def wrk(program, connections, seconds, packed):
    """Load from so many clients at a time: latencies, answers a second, CPU seconds of the server for each."""
    command = ["wrk", "-t1", "-c%d" % connections, "-d%ds" % max(1, round(seconds)), "--timeout", "%ds" % TIMEOUT, "--latency"]
    command += ["-H", "Accept-Encoding: gzip"] if packed else []
    cpu = Cpu(program.pid)
    told = subprocess.run(command + ["http://127.0.0.1:%d/metrics" % program.port], capture_output=True, text=True,
                          timeout=seconds + TIMEOUT + 60).stdout
    used = cpu.seconds()
    requests = re.search(r"(\d+) requests in", told)
    latency = {share: re.search(r"^\s+%s%%\s+([\d.]+)(us|ms|s|m)" % share, told, re.M) for share in ("50", "99")}
    if not requests or int(requests.group(1)) == 0 or not all(latency.values()) or "Socket errors" in told or "Non-2xx" in told:
        raise SystemExit("%s under wrk:\n%s" % (program.name, told))
    count = int(requests.group(1))
    return {"requests": count, "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", told).group(1)),
            "p50": float(latency["50"].group(1)) * UNITS[latency["50"].group(2)],
            "p99": float(latency["99"].group(1)) * UNITS[latency["99"].group(2)], "cpu_per_scrape": used / count}
