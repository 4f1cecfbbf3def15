#!/usr/bin/env python3
"""Whether other clients of Redis feel that it is sampled: 10,000 streams, and one client that asks at a fixed rate.

The client is an open loop: its requests are due at fixed times, and a latency counts from when its request was due. What a busy
Redis makes wait is not hidden by asking less. `make bench-guest` runs it. By environment:
  BENCH_SIZES=huge          the size (the last one that is named)
  BENCH_ROUNDS=3            how often; medians are shown, and of the longest waits the longest
  BENCH_GUEST_SECONDS=30    how long each case is measured
  BENCH_GUEST_RATE=1000     requests a second
  BENCH_QUICK=1             medium once for six seconds each; docs/performance.md stays as it is
"""

import os
import select
import socket
import tempfile
import time
from contextlib import nullcontext
from multiprocessing import Process

import report
from fill import SIZES, fill
from programs import start_peer, start_redis, start_streamlag
from resp import Connection, encode
from run import save
from scrape import Scraper
from sides import quantile, shows_everything
from usage import Cpu, Machine, machine_name

# The client asks for this key; PING would not look anything up.
KEY = "guest"
# Before the measurement, so that an exporter is past its start: a poll later.
SETTLE = 6.0


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request, self.reply = encode("GET", KEY), b"$5\r\nvalue\r\n"

    def run(self, rate, seconds):
        """Latencies of the requests that were due in that time."""
        count, due, latencies, unread = int(rate * seconds), [], [], b""
        began, sent = time.perf_counter() + 0.01, 0
        while len(latencies) < count:
            now = time.perf_counter()
            while sent < count and began + sent / rate <= now:
                self.socket.sendall(self.request)
                due.append(began + sent / rate)
                sent += 1
            wait = began + sent / rate - time.perf_counter() if sent < count else 10.0
            if select.select([self.socket], [], [], max(0.0, wait))[0]:
                unread += self.socket.recv(1 << 16)
                now = time.perf_counter()
                replies, unread = take_replies(unread, self.reply)
                latencies += [now - due[len(latencies) + n] for n in range(replies)]
        return latencies


def take_replies(text, reply):
    """How many whole replies there are, and what is left."""
    count, left = divmod(len(text), len(reply))
    if text[:count * len(reply)] != reply * count:
        raise SystemExit("Redis answers %r" % text[:80])
    return count, text[len(text) - left:]


def scrape_for_ever(port, interval):
    """As Prometheus does: once per interval, and not while one is under way."""
    began, scraper = time.monotonic(), Scraper(port, packed=True)
    while True:
        scraper.get()
        time.sleep(interval - (time.monotonic() - began) % interval)


def measure(redis, rate, seconds, exporter=None, scrape_every=None, samples=None):
    """The client's latencies beside this exporter."""
    time.sleep(SETTLE if exporter else 0.5)
    # A process of its own: a thread would make the client wait for its turns.
    scrapes = Process(target=scrape_for_ever, args=(exporter.port, scrape_every), daemon=True) if exporter else None
    if scrapes:
        scrapes.start()
    client, server, used = Client(redis.port), Cpu(redis.pid), Cpu(exporter.pid) if exporter else None
    machine = Machine(redis.pid, *([exporter.pid] if exporter else []))
    before, began = redis.connection.calls().get("xinfo|groups", 0), time.monotonic()
    latencies = client.run(rate, seconds)
    wall = time.monotonic() - began
    out = {"p50": quantile(latencies, 0.5), "p99": quantile(latencies, 0.99), "p99.9": quantile(latencies, 0.999),
           "max": max(latencies), "redis_cpu_share": server.seconds() / wall,
           "exporter_cpu_share": used.seconds() / wall if used else None,
           "foreign": machine.foreign_share(),
           "samples": round((redis.connection.calls().get("xinfo|groups", 0) - before) / samples, 1)}
    client.socket.close()
    if scrapes:
        scrapes.terminate()
        scrapes.join()
    return out


def cases(directory, redis, size, peer_seconds):
    """What stands beside the client: the exporter, how often it is scraped, for how long at least."""
    yield "none", nullcontext, None, 0
    yield "streamlag, default settings", lambda: start_streamlag(directory, redis, size), 15, 0
    yield "streamlag, unspread", lambda: start_streamlag(directory, redis, size, "--poll.spread=0%"), 15, 0
    yield "redis_exporter, scraped every 15 s", lambda: start_peer(directory, redis), 15, peer_seconds
    yield "redis_exporter, scraped every 5 s", lambda: start_peer(directory, redis), 5, peer_seconds


def be_prompt():
    """The client is to be run as soon as it has something to do, where that is allowed: it measures Redis, not the machine's
    scheduler. Programs that it starts do not inherit it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        print("the client has no priority, which takes root: its latencies hold its own waits for a core")


def main():
    quick = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
    size = (os.environ.get("BENCH_SIZES") or ("medium" if quick else "huge")).split(",")[-1]
    seconds = float(os.environ.get("BENCH_GUEST_SECONDS") or (6 if quick else 30))
    rate = int(os.environ.get("BENCH_GUEST_RATE") or 1000)
    rounds = int(os.environ.get("BENCH_ROUNDS") or (1 if quick else 3))
    results = {"when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine_name(), "rate": "{:,}".format(rate),
               "seconds": seconds, "size": size, "rounds": rounds, "cases": {}}
    with tempfile.TemporaryDirectory(prefix="streamlag-guest-") as directory, start_redis(directory) as redis:
        fill(redis.port, size)
        redis.connection = Connection(redis.port)
        redis.connection.call("SET", KEY, "value")
        be_prompt()
        for _ in range(rounds):
            for name, start, every, least in cases(directory, redis, size, 0 if quick else 30):
                with start() as exporter:
                    if exporter:
                        with Scraper(exporter.port) as scraper:
                            exporter.wait_until("showing every stream", shows_everything(scraper, size))
                    figures = measure(redis, rate, max(seconds, least), exporter, every, SIZES[size][0])
                results["cases"].setdefault(name, []).append(figures)
            save("guest", results)
    text = report.guest(results)
    print(text)
    report.write("guest", text, quick)


if __name__ == "__main__":
    main()
