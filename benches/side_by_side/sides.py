"""One exporter, measured: a sample of all streams, what it costs, and how its page is served."""

import statistics
import time

import scrape
from fill import SIZES, stream_name
from programs import start_peer, start_static, start_streamlag
from scrape import Scraper, metric
from usage import Cpu, Machine, memory

# The peer's load tests that would take longer are left out: with a second a page and 64 clients, a percentile takes minutes.
PEER_LOAD_AT_MOST = 40.0
# Samples of the program until its page is up, as somebody outside sees it.
SEEN_FROM_OUTSIDE = 9


def calls_between(before, after, samples):
    """Commands a sample, without the INFO that asks."""
    calls = {name: count - before.get(name, 0) for name, count in after.items()}
    calls["info"] -= 1
    return {name: round(count / samples, 2) for name, count in sorted(calls.items(), key=lambda call: -call[1]) if count}


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def shows_everything(scraper, size):
    last = '"%s"' % stream_name(SIZES[size][0] - 1)

    def look():
        answer = scraper.get()
        return answer if last in answer.text() else None

    return look


def page_figures(answer):
    text = answer.text()
    return {"page_bytes": len(text.encode()), "series": sum(1 for line in text.splitlines() if line[:1] not in ("#", ""))}


def measure_peer(bench, redis, size, idle_cpu, core=None):
    """redis_exporter, which samples when it is scraped; with Redis on one core, where that is given."""
    with start_peer(bench.directory, redis, core) as peer, Scraper(peer.port) as plain, Scraper(peer.port, True) as packed:
        out = page_figures(peer.wait_until("showing every stream", shows_everything(plain, size)))
        times, before = [], redis.connection.calls()
        machine, exporter, server, began = Machine(peer.pid, redis.pid), Cpu(peer.pid), Cpu(redis.pid), time.monotonic()
        while len(times) < 3 or time.monotonic() - began < bench.seconds:
            times.append(plain.get().seconds)
        wall = time.monotonic() - began
        used, redis_used = exporter.seconds(), server.seconds() - idle_cpu * wall
        out.update(sample=statistics.median(times), samples=len(times), cpu=used / len(times), redis_cpu=redis_used / len(times),
                   calls=calls_between(before, redis.connection.calls(), len(times)), foreign=machine.foreign_share(),
                   rss=memory(peer.pid)["rss"])
        out["commands"] = sum(out["calls"].values())
        out["plain 1"] = {"p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}
        out.update(paced_scrapes(plain, peer, redis, bench.paces[size], bench.window / 2, idle_cpu))
        if core is None:
            answers = [packed.get() for _ in range(3)]
            times = [answer.seconds for answer in answers]
            out["gzip_bytes"] = int(answers[0].headers.get("content-length", len(answers[0].body)))
            while sum(times) < bench.seconds / 2:
                times.append(packed.get().seconds)
            out["gzip 1"] = {"p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}
            for connections in bench.connections[1:]:
                seconds = max(bench.wrk_seconds, 2 * connections * out["sample"])
                if seconds <= PEER_LOAD_AT_MOST:
                    for form in ("plain", "gzip"):
                        out["%s %d" % (form, connections)] = scrape.wrk(peer, connections, seconds, form == "gzip")
        out["rss_peak"] = memory(peer.pid)["rss_peak"]
        return out


def paced_scrapes(scraper, peer, redis, pace, seconds, idle_cpu):
    """One scrape per `pace`, or one after the other where they take longer; figures per scrape."""
    times, used, redis_used, began = [], Cpu(peer.pid), Cpu(redis.pid), time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        if times and times[-1] < pace:
            time.sleep(pace - (time.perf_counter() - began) % pace)
        times.append(scraper.get().seconds)
    wall = time.perf_counter() - began
    return {"paced_sample": statistics.median(times), "paced_cpu": used.seconds() / len(times),
            "paced_redis_cpu": (redis_used.seconds() - idle_cpu * wall) / len(times)}


def measure_sampling(bench, redis, size, idle_cpu):
    """The program, polling often. The window begins and ends with a new page, so that it holds whole polls."""
    interval = bench.intervals[size]
    settings = ("--poll.interval=%s" % interval, "--poll.max-redis-share=100%", "--poll.spread=0%")
    with start_streamlag(bench.directory, redis, size, *settings) as ours, Scraper(ours.port, True) as scraper:
        first = ours.wait_until("showing every stream", shows_everything(scraper, size))
        for _ in range(3):
            first, _ = scraper.next_page(first.body)
        first = counted(scraper, first)
        before = redis.connection.calls()
        machine, exporter, server, began = Machine(ours.pid, redis.pid), Cpu(ours.pid), Cpu(redis.pid), time.monotonic()
        time.sleep(bench.window)
        last, _ = scraper.next_page(scraper.get().body)
        wall = time.monotonic() - began
        used, redis_used = exporter.seconds(), server.seconds() - idle_cpu * wall
        calls, foreign = redis.connection.calls(), machine.foreign_share()
        first, text = first.text(), last.text()

        def rose(series):
            return metric(text, series) - metric(first, series)

        polls = rose('streamlag_polls_total{outcome="success"}')
        timed = rose("streamlag_poll_duration_seconds_count")
        if polls < 1 or polls != timed:
            raise SystemExit("%d of %d polls succeeded within %.1f s" % (polls, timed, wall))
        out = page_figures(last)
        out.update(sample=rose("streamlag_poll_duration_seconds_sum") / polls, samples=polls, cpu=used / polls,
                   redis_cpu=redis_used / polls, calls=calls_between(before, calls, polls), foreign=foreign,
                   gzip_bytes=len(last.body), **memory(ours.pid))
        out["commands"] = sum(out["calls"].values())
        out["until_seen"] = statistics.median(until_seen(scraper))
        out["cpu_scraped"] = cpu_with_scrapes(bench, ours, scraper, size)
        return out


def counted(scraper, page):
    """The first page after the lags that only counting tells are counted, which takes the first polls."""
    before = -1
    while before != (now := metric(page.text(), "streamlag_counted_entries_total")):
        before = now
        for _ in range(3):
            page, _ = scraper.next_page(page.body)
    return page


def cpu_with_scrapes(bench, ours, scraper, size):
    """CPU seconds for a sample and a scrape of its page, in gzip."""
    def polls(answer):
        return metric(answer.text(), 'streamlag_polls_total{outcome="success"}')

    first, used = scraper.get(), Cpu(ours.pid)
    began = time.monotonic()
    while time.monotonic() - began < bench.window / 2:
        time.sleep(bench.paces[size])
        last = scraper.get()
    return used.seconds() / max(1, polls(last) - polls(first))


def until_seen(scraper):
    """Seconds from the beginning of a sample, as its page says, until that page was had: what no counter can leave out."""
    for _ in range(SEEN_FROM_OUTSIDE):
        # The one before may be old news by now.
        page, at = scraper.next_page(scraper.get().body)
        yield at - metric(page.text(), "streamlag_last_successful_poll_timestamp_seconds")


def measure_serving(bench, redis, size):
    """The program as it comes, beside a server that sends the very same bytes, in turns."""
    with start_streamlag(bench.directory, redis, size) as ours, Scraper(ours.port) as plain, Scraper(ours.port, True) as packed:
        ours.wait_until("showing every stream", shows_everything(plain, size))
        page = plain.get()
        for _ in range(bench.rests):
            page, _ = plain.next_page(page.body, pause=0.25)
        out = {"rss": memory(ours.pid)["rss"]}
        left_out = ("date", "content-length", "connection")
        headers = ["%s:%s" % header for header in page.headers.items() if header[0] not in left_out]
        turns = {}
        with start_static(bench.directory, page.body, packed.get().body, headers) as static, Scraper(static.port) as other:
            same = static.wait_until("answering", other.get)
            if same.body != page.body or {**page.headers, **same.headers, "date": ""} != {**same.headers, "date": ""}:
                raise SystemExit("the static server's answer is another: %r, %r" % (page.headers, same.headers))
            for form in ("plain", "gzip"):
                for connections in bench.connections:
                    for _ in range(bench.turns):
                        for side, server in (("ours", ours), ("static", static)):
                            figures = scrape.wrk(server, connections, bench.wrk_seconds, form == "gzip")
                            turns.setdefault((side, "%s %d" % (form, connections)), []).append(figures)
        out["rss_peak"] = memory(ours.pid)["rss_peak"]
        out["turns"] = {side: {what: figures for (of, what), figures in turns.items() if of == side} for side in ("ours", "static")}
        return out
