"""Starting the programs that are measured, on free ports of 127.0.0.1, and stopping them again."""

import os
import re
import signal
import socket
import subprocess
import time

from fill import SIZES, stream_name
from resp import Connection
from usage import threads

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "release")
STREAMLAG = os.environ.get("BENCH_STREAMLAG") or os.path.join(RELEASE, "streamlag")
STATIC = os.path.join(RELEASE, "examples", "static_http")
PEER = "prometheus-redis-exporter"
# The largest size takes Redis a while to fill, and redis_exporter some eight seconds to answer.
START_TIMEOUT, STOP_TIMEOUT = 60.0, 10.0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Program:
    """A program that runs until the end of a `with` block."""

    def __init__(self, directory, command, port):
        self.port, self.name = port, os.path.basename(command[3] if command[0] == "taskset" else command[0])
        self.log = os.path.join(directory, "%s-%d.log" % (self.name, port))
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def wait_until(self, what, is_so):
        """Until `is_so` gives something true, which is returned; a connection that is refused is no such thing."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end:
            if self.child.poll() is not None:
                break
            try:
                found = is_so()
                if found:
                    return found
            except OSError:
                pass
            time.sleep(0.02)
        with open(self.log, errors="replace") as log:
            raise SystemExit("%s: not %s after %g s:\n%s" % (self.name, what, START_TIMEOUT, log.read()[-2000:]))

    def pin(self, cores):
        for thread in threads(self.pid):
            os.sched_setaffinity(thread, cores)


def start_redis(directory):
    port = free_port()
    # Its own chores once a second: ten times, as by default, they would cost more than small samples do.
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--hz", "1"]
    redis = Program(directory, command, port)

    def answers():
        connection = Connection(port)
        try:
            return connection.call("PING")
        finally:
            connection.close()

    redis.wait_until("answering", answers)
    return redis


def start_peer(directory, redis, core=None):
    """Prometheus's redis_exporter, with the streams by their pattern; on one core, where that is given."""
    port = free_port()
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    return Program(directory, pinned + [
        PEER, "-redis.addr", "redis://127.0.0.1:%d" % redis.port, "-web.listen-address", "127.0.0.1:%d" % port,
        "-check-streams", "s:*"], port)


def start_streamlag(directory, redis, size, *settings):
    port = free_port()
    file = os.path.join(directory, "streamlag-%d.yml" % port)
    with open(file, "w") as config:
        config.write("streams:\n")
        config.writelines("  - %s\n" % stream_name(n) for n in range(SIZES[size][0]))
    return Program(directory, [
        STREAMLAG, "--config.file", file, "--redis.url", "redis://127.0.0.1:%d/0" % redis.port, "--groups", "*",
        "--web.listen-address", "127.0.0.1:%d" % port, "--redis.timeout", "10s", *known(settings)], port)


def known(settings):
    """Those settings that this streamlag has, so that older ones can be measured as well."""
    told = subprocess.run([STREAMLAG, "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"--[a-z.-]+", told))
    return [setting for setting in settings if setting.split("=")[0] in flags]


def start_static(directory, plain, packed, headers):
    """The server that sends these bytes to everybody."""
    port = free_port()
    files = []
    for name, content in (("plain", plain), ("gzip", packed)):
        files.append(os.path.join(directory, "page-%d.%s" % (port, name)))
        with open(files[-1], "wb") as file:
            file.write(content)
    return Program(directory, [STATIC, str(port), *files, *headers], port)


def version_of(command):
    told = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"(?:v=|Exporter |streamlag )([0-9][^\s,\"-]*)", told.stdout + told.stderr)
    return found.group(1) if found else "unknown"
