#!/usr/bin/env python3
"""A day in fast motion: records the demo's load, has it forecast, and draws the forecasts beside what came.

    python3 -B benches/forecast/day.py record FOLDER --bin target/demo [--redis-server PATH] [--minutes 48]
    cargo bench --bench forecast -- --replay FOLDER
    python3 -B benches/forecast/day.py draw FOLDER --write docs/images/forecast-day.svg

`record` starts a Redis, `loadgen` and streamlag, which samples once a second, as `make demo` does, and adds entries to events:chat now and then, as the demo
suggests. At the end it writes what streamlag's history has, a point a second. In the replay each second is a minute: 48 minutes are two days. `draw` needs no
more than Python.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

STREAMS = ["events:chat", "events:ticket", "events:remote"]
GROUP = "signalr-consumers"
# Seconds between the demo's extra entries, and how many.
PAUSE = (60, 240)
EXTRA = (1000, 4000)
ANSWER_DEADLINE = 30


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def until(what, is_there):
    deadline = time.monotonic() + ANSWER_DEADLINE
    while not is_there():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: no answer within {ANSWER_DEADLINE} s")
        time.sleep(0.1)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def record(arguments):
    arguments.folder.mkdir(parents=True, exist_ok=True)
    redis_port, port = free_port(), free_port()
    redis = f"redis://127.0.0.1:{redis_port}/0"
    token = os.urandom(16).hex()
    # Settings of another streamlag that this shell may hold are not for this one.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMLAG_", "EVENT_TRANSPORT_", "REDIS_"))}
    running = []

    def start(command, **more):
        running.append(subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, env={**clean, **more}))

    def ask(path):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=ANSWER_DEADLINE) as answer:
            return answer.read()

    try:
        with tempfile.TemporaryDirectory() as directory:
            start([arguments.redis_server, "--bind", "127.0.0.1", "--port", redis_port, "--save", "", "--appendonly", "no", "--dir", directory, "--logfile", "redis.log"])
            until("redis-server", lambda: listens(redis_port))
            start([arguments.bin / "loadgen", "--redis.url", redis, "--minutes", arguments.minutes + 2])
            start([arguments.bin / "streamlag", "--redis.url", redis, "--web.listen-address", f"127.0.0.1:{port}", "--poll.interval", "1s"], STREAMLAG_API_TOKEN=token)
            until("streamlag", lambda: listens(port))
            ends = time.monotonic() + 60 * arguments.minutes
            chance = random.Random(arguments.seed)
            more_at = time.monotonic() + chance.uniform(*PAUSE)
            while time.monotonic() < ends:
                time.sleep(1)
                for process in running:
                    if process.poll() is not None:
                        sys.exit(f"{process.args[0]} ended by itself")
                if time.monotonic() >= more_at:
                    subprocess.run([str(arguments.bin / "loadgen"), "--redis.url", redis, "--once", str(chance.randint(*EXTRA))], env=clean, check=True, stdout=subprocess.DEVNULL)
                    more_at = time.monotonic() + chance.uniform(*PAUSE)
            for stream in STREAMS:
                query = urllib.parse.urlencode({"stream": stream, "group": GROUP, "from": f"-{arguments.minutes}m", "step": "1s"})
                answer = ask(f"/api/v1/events/history?{query}")
                write(arguments.folder, stream, json.loads(answer)["points"])
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(ANSWER_DEADLINE)


def write(folder, stream, points):
    """The record: a second of it is a minute of what is replayed."""
    second = lambda point: datetime.datetime.fromisoformat(point["time"].replace("Z", "+00:00")).timestamp()
    text = lambda value: "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")
    with open(folder / f"{stream.split(':')[1]}.csv", "w", encoding="utf-8") as file:
        file.write("minute,lag_min,lag_max,length,added,delivered\n")
        for point in points:
            values = [point[name] for name in ["lag_min", "lag_max", "length", "added_per_second", "delivered_per_second"]]
            file.write(",".join([f"{second(point) - second(points[0]) + 1:.0f}", *map(text, values)]) + "\n")
    print(f"{stream}: {len(points)} points")


WIDTH, HEIGHT, LEFT, TOP, GAP = 1000, 170, 70, 40, 46


def draw(arguments):
    forecasts = [json.loads(line) for line in open(arguments.folder / "forecasts.jsonl", encoding="utf-8")]
    names = [stream.split(":")[1] for stream in STREAMS]
    records = {}
    for name in names:
        rows = [line.rstrip("\n").split(",") for line in open(arguments.folder / f"{name}.csv", encoding="utf-8")][1:]
        records[name] = [(60 * float(row[0]), float(row[2])) for row in rows if row[2]]
    hours = max(rows[-1][0] for rows in records.values()) / 3600
    total = TOP + len(names) * (HEIGHT + GAP) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" font-size="13" role="img" aria-label="Forecasts of the demo\'s load beside what came">',
        f'<rect width="{WIDTH}" height="{total}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20">Lag in entries: what came (black), the medians of forecasts (blue), their 80% and 95% intervals. Each is made at its left end.</text>',
    ]
    told, inside, inside_95 = 0, 0, 0
    for place, name in enumerate(names):
        top = TOP + place * (HEIGHT + GAP)
        made = [forecast for forecast in forecasts if forecast["stream"] == name]
        highest = max(lag for _, lag in records[name])
        highest = 1.15 * max([highest] + [row[4] for forecast in made for row in forecast["points"] or []])
        x = lambda time: f"{LEFT + (WIDTH - LEFT - 10) * time / 3600 / hours:.1f}"
        y = lambda lag: f"{top + HEIGHT * (1 - min(lag, highest) / highest):.1f}"
        out.append(f'<text x="{LEFT}" y="{top - 4}" font-weight="bold">events:{name}</text>')
        out.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - 10}" height="{HEIGHT}" fill="none" stroke="#bbb"/>')
        for share in (0.5, 1):
            out.append(f'<text x="{LEFT - 6}" y="{top + HEIGHT * (1 - share) + 5:.0f}" text-anchor="end" fill="#555">{share * highest:,.0f}</text>')
        for hour in range(0, int(hours) + 1, 6):
            out.append(f'<text x="{x(3600 * hour)}" y="{top + HEIGHT + 16}" text-anchor="middle" fill="#555">{hour} h</text>')
        actual = dict(records[name])
        for forecast in made:
            rows = forecast["points"]
            out.append(f'<line x1="{x(forecast["made_at"])}" x2="{x(forecast["made_at"])}" y1="{top}" y2="{top + HEIGHT}" stroke="#ddd"/>')
            if not rows:
                continue
            start = actual.get(forecast["made_at"], rows[0][3])
            line = lambda at: [(forecast["made_at"], start)] + [(row[0], row[at]) for row in rows]
            path = lambda points: " ".join(f"{x(time)},{y(lag)}" for time, lag in points)
            for low, high, colour in [(1, 5, "#dbe9f9"), (2, 4, "#a9cbf0")]:
                out.append(f'<polygon points="{path(line(high) + line(low)[::-1])}" fill="{colour}"/>')
            out.append(f'<polyline points="{path(line(3))}" fill="none" stroke="#1f6fc4" stroke-width="1.5"/>')
            for row in rows:
                if row[0] in actual:
                    told += 1
                    inside += row[2] <= actual[row[0]] <= row[4]
                    inside_95 += row[1] <= actual[row[0]] <= row[5]
        out.append(f'<polyline points="{" ".join(f"{x(time)},{y(lag)}" for time, lag in records[name][::3])}" fill="none" stroke="#111" stroke-width="1"/>')
    out.append("</svg>")
    arguments.write.write_text("\n".join(out) + "\n", encoding="utf-8")
    there = sum(forecast["points"] is not None for forecast in forecasts)
    print(f"{there} of {len(forecasts)} forecasts had points; of their {told} moments {100 * inside / max(told, 1):.0f}% were within 80%, {100 * inside_95 / max(told, 1):.0f}% within 95%")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("folder", type=pathlib.Path)
    recorder.add_argument("--bin", type=pathlib.Path, required=True, help="where streamlag and loadgen are")
    recorder.add_argument("--redis-server", default="redis-server")
    recorder.add_argument("--minutes", type=int, default=48)
    recorder.add_argument("--seed", type=int, default=1)
    drawer = commands.add_parser("draw")
    drawer.add_argument("folder", type=pathlib.Path)
    drawer.add_argument("--write", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    record(arguments) if arguments.command == "record" else draw(arguments)


if __name__ == "__main__":
    main()
