#!/usr/bin/env python3
"""What history costs the running program: CPU of its threads over polls of 10,000 groups, with a history file and without, in turns.

Run by `make bench-history`, which builds the release binary first. SECONDS_OF_RUN (90) is the time of one run, ROUNDS (3) how many pairs there
are. CPU time is that of user and system mode: how long something takes is up to what else the machine does.
"""

import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "side_by_side"))

from resp import Connection, encode  # noqa: E402

STREAMS, GROUPS = 100, int(os.environ.get("GROUPS_OF_STREAM", "100"))
SECONDS, ROUNDS = int(os.environ.get("SECONDS_OF_RUN", "90")), int(os.environ.get("ROUNDS", "3"))
BINARY = os.environ.get("STREAMLAG", str(HERE.parent / "target" / "release" / "streamlag"))
# How long anything may take to start or to end.
PATIENCE = 120.0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, check):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            found = check()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit("%s took more than %d s" % (what, PATIENCE))


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)


def names():
    return ["s:%03d" % stream for stream in range(STREAMS)]


def fill(connection):
    for stream in names():
        connection.pipeline(encode("XGROUP", "CREATE", stream, "g%02d" % group, "$", "MKSTREAM") for group in range(GROUPS))


def load(port, ended):
    """Each second entries for every stream, and a read of one group of each: every lag changes."""
    connection, second = Connection(port), 0
    while not ended.wait(1.0):
        second += 1
        reads = (
            encode("XREADGROUP", "GROUP", "g%02d" % (second % GROUPS), "c", "COUNT", 50, "NOACK", "STREAMS", s, ">")
            for s in names()
        )
        adds = (encode("XADD", stream, "MAXLEN", "~", 1000, "*", "f", second) for stream in names() for _ in range(3))
        connection.pipeline(adds)
        connection.pipeline(reads)
    connection.close()


def threads(pid):
    """CPU seconds by the kind of thread, of those that live."""
    kinds = {}
    for thread in os.listdir("/proc/%d/task" % pid):
        try:
            name = pathlib.Path("/proc/%d/task/%s/comm" % (pid, thread)).read_text().strip()
            spent = int(pathlib.Path("/proc/%d/task/%s/schedstat" % (pid, thread)).read_text().split()[0]) / 1e9
        except FileNotFoundError:
            continue
        kind = name if name in ("pollers", "history", "history-file") else "others"
        kinds[kind] = kinds.get(kind, 0.0) + spent
    return kinds


def metric(port, name):
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=PATIENCE) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
    return None


def run(redis, folder, with_file):
    """Milliseconds of CPU per poll, by the kind of thread."""
    port = free_port()
    arguments = [BINARY, "--redis.url", "redis://127.0.0.1:%d" % redis, "--streams", "s:*", "--groups", "*",
                 "--web.listen-address", "127.0.0.1:%d" % port, "--poll.max-redis-share", "100%", "--redis.timeout", "30s",
                 "--log.level", "error"]
    if with_file:
        arguments += ["--history.path", os.path.join(folder, "history.db")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        polls = 'streamlag_polls_total{outcome="success"}'
        until("the first poll", lambda: (metric(port, polls) or 0) >= 2)
        first, before = metric(port, polls), threads(process.pid)
        time.sleep(SECONDS)
        after, last = threads(process.pid), metric(port, polls)
        dropped = metric(port, "streamlag_history_points_dropped_total")
        if dropped:
            raise SystemExit("%d points of history were dropped" % dropped)
        return {kind: (after[kind] - before.get(kind, 0.0)) * 1000 / (last - first) for kind in after}
    finally:
        stop(process)


def main():
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        ended = threading.Event()
        try:
            connection = until("Redis", lambda: Connection(port))
            fill(connection)
            loading = threading.Thread(target=load, args=(port, ended))
            loading.start()
            runs = {False: [], True: []}
            for number in range(2 * ROUNDS):
                # Neither is always the first of its pair.
                with_file = number % 4 in (1, 2)
                runs[with_file].append(run(port, folder, with_file))
        finally:
            ended.set()
            stop(server)
    of = lambda with_file, kind: statistics.median(run.get(kind, 0.0) for run in runs[with_file])  # noqa: E731
    print("ms of CPU per poll of %d groups, median of %d runs of %d s each:" % (STREAMS * GROUPS, ROUNDS, SECONDS))
    print("%-14s %10s %10s" % ("threads", "memory", "file"))
    for kind in ("pollers", "history", "history-file", "others"):
        print("%-14s %10.2f %10.2f" % (kind, of(False, kind), of(True, kind)))
    print("polls with a file, to those without: %.3f" % (of(True, "pollers") / of(False, "pollers")))
    for with_file, name in ((False, "memory"), (True, "file")):
        share = (of(with_file, "history") + of(with_file, "history-file")) / of(with_file, "pollers")
        print("history in %s, to polls: %.3f" % (name, share))


main()
