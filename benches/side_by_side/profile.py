#!/usr/bin/env python3
"""Where streamlag's own time goes, by perf, which looks a thousand times a second at what it is at. `make bench-profile` runs it.
By environment:
  BENCH_SIZES=large       the size (the last one that is named)
  BENCH_QUICK=1           three seconds
"""

import os
import re
import subprocess
import tempfile
import time

import report
from figures import table
from fill import fill
from programs import start_redis, start_streamlag
from scrape import Scraper
from sides import shows_everything
from usage import machine_name

# Before that, the first polls ask more, and buffers grow.
SETTLE = 3.0
# What a function is for, by its name: the first that matches.
STAGES = [
    ("the kernel: sockets, waking up", r"\[k\]"),
    ("freeing and allocating", r"_rjem_|drop_in_place|drop_slow|jemalloc"),
    ("copying and comparing bytes", r"__mem|_mem(cpy|move|cmp|set)"),
    ("reading replies", r"resp_stream|redis::resp"),
    ("decoding them", r"redis::replies|collector::response|entry_id|GenericShunt"),
    ("asking", r"streamlag::(redis|collector::(request|sample|standalone|pacer|stream_state|cluster|sentinel))"),
    ("resolving lags, verdicts", r"streamlag::analysis"),
    ("compressing the page", r"zlib|crc32|deflate|miniz"),
    ("writing the page", r"streamlag::(exposition|collector)|dtoa|itoa|core::(fmt|str)|prometheus_client"),
    ("the runtime", r"tokio|mio::|pthread|futex"),
]
# The functions that are named one by one.
SHOWN = 12


def profile(directory, redis, size, seconds):
    """(share, function) of each function, the most first."""
    data = os.path.join(directory, "perf.data")
    settings = ("--poll.interval=100ms", "--poll.max-redis-share=100%", "--poll.spread=0%")
    with start_streamlag(directory, redis, size, *settings) as ours:
        with Scraper(ours.port) as scraper:
            ours.wait_until("showing every stream", shows_everything(scraper, size))
        time.sleep(SETTLE)
        # The clock of the kernel, as virtual machines often have no counters of their own.
        subprocess.run(["perf", "record", "-q", "-F", "999", "-e", "cpu-clock", "-o", data, "-p", str(ours.pid), "--",
                        "sleep", "%g" % seconds], check=True, stderr=subprocess.DEVNULL)
    told = subprocess.run(["perf", "report", "-i", data, "--no-children", "--stdio", "-F", "overhead,sym"], check=True,
                          capture_output=True, text=True).stdout
    lines = re.findall(r"^\s+([\d.]+)%\s+(\[.\] .*?)(?:\s+-\s+-)?\s*$", told, re.M)
    return [(float(share), function) for share, function in lines]


def main():
    quick = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
    size = (os.environ.get("BENCH_SIZES") or "large").split(",")[-1]
    with tempfile.TemporaryDirectory(prefix="streamlag-profile-") as directory, start_redis(directory) as redis:
        fill(redis.port, size)
        functions = profile(directory, redis, size, 3 if quick else 20)
    shares = {}
    for share, function in functions:
        stage = next((stage for stage, names in STAGES if re.search(names, function)), "anything else")
        shares[stage] = shares.get(stage, 0.0) + share
    stages = [[stage, "%.0f %%" % share] for stage, share in sorted(shares.items(), key=lambda one: -one[1])]
    named = [["`%s`" % function.split(" ", 1)[1], "%.1f %%" % share] for share, function in functions[:SHOWN]]
    text = "Measured %s on %s, at the size %s.\n\n" % (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), machine_name(), size)
    text += table(["what", "share of streamlag's CPU"], stages) + "\n" + table(["function", "share"], named)
    print(text)
    report.write("profile", text, quick)


if __name__ == "__main__":
    main()
