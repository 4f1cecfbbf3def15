#!/usr/bin/env python3
"""Measures streamlag beside redis_exporter and the floor, and writes tables to target/bench and docs/performance.md.

`make bench` runs it, after it has built and installed what it takes. By environment:
  BENCH_SIZES=small,medium,large,huge   which sizes
  BENCH_ROUNDS=3                        how often; medians are shown
  BENCH_QUICK=1                         small and medium once, briefly; docs/performance.md stays as it is
  BENCH_STREAMLAG=PATH                  another streamlag than the one in target/release
It takes half an hour, wants a quiet machine, and leaves all figures in target/bench/side_by_side.json.
"""

import json
import os
import sys
import tempfile
import time

import floor
import report
from figures import shown
from fill import SIZES, fill
from programs import PEER, STREAMLAG, start_redis, version_of
from resp import Connection
from sides import measure_peer, measure_sampling, measure_serving
from usage import CORES, Cpu, machine_name


class Bench:
    """How long everything is done. Seconds, but for `turns` and `rests`, which are counts."""

    def __init__(self, directory, quick):
        self.directory = directory
        self.seconds = 1.5 if quick else 4.0
        self.window = 3.0 if quick else 10.0
        self.wrk_seconds = 1 if quick else 4
        self.turns = 2
        # Pages of the program as it comes before it is measured: buffers have their size then.
        self.rests = 1 if quick else 3
        self.connections = report.CONNECTIONS
        self.intervals = {"small": "100ms", "medium": "100ms", "large": "100ms", "huge": "1s"}
        self.paces = {"small": 0.1, "medium": 0.1, "large": 0.1, "huge": 1.0}


def idle_cpu(redis, seconds):
    """CPU seconds that Redis takes in a second of doing nothing, at least. It is no sample's, and at a few commands it would show."""
    shares = []
    for _ in range(3):
        cpu = Cpu(redis.pid)
        time.sleep(seconds / 3)
        shares.append(cpu.seconds() / (seconds / 3))
    return min(shares)


def measure_round(bench, redis, size):
    idle = idle_cpu(redis, 2 * bench.seconds)
    sides = {"floor": floor.measure(redis, size, bench.seconds),
             "paced": floor.measure(redis, size, bench.window / 2, bench.paces[size], idle)}
    sides["peer"] = measure_peer(bench, redis, size, idle)
    redis.pin({0})
    sides["best"] = measure_peer(bench, redis, size, idle, core=0)
    redis.pin(set(range(CORES)))
    sides["ours"] = measure_sampling(bench, redis, size, idle)
    sides["serving"] = measure_serving(bench, redis, size)
    print("%s: sample: floor %s, paced %s, redis_exporter %s, its best %s, streamlag %s" % (
        size, *(shown(sides[name]["sample"], "s") for name in ("floor", "paced", "peer", "best", "ours"))), file=sys.stderr)
    return sides


def save(name, results):
    os.makedirs(report.OUTPUT, exist_ok=True)
    with open("%s/%s.json" % (report.OUTPUT, name), "w") as file:
        json.dump(results, file, indent=1)


def main():
    quick = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
    sizes = (os.environ.get("BENCH_SIZES") or ("small,medium" if quick else ",".join(SIZES))).split(",")
    rounds = int(os.environ.get("BENCH_ROUNDS") or (1 if quick else 3))
    for size in sizes:
        if size not in SIZES:
            raise SystemExit("BENCH_SIZES is '%s': '%s' is none of %s" % (",".join(sizes), size, ", ".join(SIZES)))
    results = {"when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine_name(), "rounds": rounds,
               "redis": version_of(["redis-server", "--version"]), "peer": version_of([PEER, "--version"]),
               "streamlag": version_of([STREAMLAG, "--version"]), "sizes": {}}
    with tempfile.TemporaryDirectory(prefix="streamlag-bench-") as directory:
        bench = Bench(directory, quick)
        for size in sizes:
            with start_redis(directory) as redis:
                fill(redis.port, size)
                redis.connection = Connection(redis.port)
                results["sizes"][size] = [measure_round(bench, redis, size) for _ in range(rounds)]
            # After each size, so that a run that is broken off leaves what it has.
            save("side_by_side", results)
    for marker, tell in (("summary", report.summary), ("bench", report.side_by_side), ("sizing", report.sizing), ("goals", report.goals)):
        text = tell(results)
        print(text)
        report.write(marker, text, quick)


if __name__ == "__main__":
    main()
