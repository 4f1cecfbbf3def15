"""Formats the figures of a run as tables: some for docs/performance.md, all for target/bench."""

import os

from figures import merged, ratio, shown, table
from fill import SIZES
from programs import ROOT

DOCUMENT = ROOT + "/docs/performance.md"
OUTPUT = ROOT + "/target/bench"
# Tables of the document. The others are written to target/bench only.
IN_DOCUMENT = ("summary", "guest", "sizing")
CONNECTIONS = (1, 8, 64)


def write(marker, text, quick):
    """Writes the table to target/bench, and between its marker lines in the document unless the run was a quick one."""
    os.makedirs(OUTPUT, exist_ok=True)
    with open("%s/%s.md" % (OUTPUT, marker), "w") as file:
        file.write(text)
    if quick or marker not in IN_DOCUMENT:
        return
    begin, end = ("<!-- %s: %s -->\n" % (marker, which) for which in ("begin", "end"))
    with open(DOCUMENT) as file:
        head, _, rest = file.read().partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit("docs/performance.md lacks the lines of %s" % marker)
    with open(DOCUMENT, "w") as file:
        file.write(head + begin + text + end + tail)


def side_by_side(results):
    lines = ["Measured %(when)s on %(machine)s, with redis-server %(redis)s, redis_exporter %(peer)s, streamlag %(streamlag)s; "
             "medians over %(rounds)d rounds.\n" % results]
    for size, rounds in results["sizes"].items():
        lines.append("\n### %s: %s streams × %d groups × %d consumers\n\n" % (
            size, "{:,}".format(SIZES[size][0]), *SIZES[size][1:]))
        lines.append(table(
            ["", "floor", "floor, paced", "redis_exporter", "its best", "streamlag", "to floor", "to paced",
             "to redis_exporter", "to its best"],
            rows(with_serving(rounds))))
        lines.append(notes(rounds))
    return "".join(lines)


def summary(results):
    """One line for each size."""
    lines = []
    for size, rounds in results["sizes"].items():
        sides = with_serving(rounds)
        floor, paced, peer, best, ours = (sides[name] for name in ("floor", "paced", "peer", "best", "ours"))
        samples = [shown(side["sample"], "s") for side in (floor, paced, peer, best, ours)]
        redis = [shown(side["redis_cpu"], "s") for side in (floor, peer, ours)]
        lines.append(["%s × %d × %d" % ("{:,}".format(SIZES[size][0]), *SIZES[size][1:]), *samples, " / ".join(redis),
                      *(" / ".join(shown(side[what], unit) for side in (peer, ours)) for what, unit in (("cpu", "s"), ("rss", "B"))),
                      *("%s (%s)" % (shown(side["page_bytes"], "B"), shown(side["gzip_bytes"], "B")) for side in (peer, ours))])
    return table(["streams × groups × consumers", "sample: floor", "paced", "redis_exporter", "its best", "streamlag",
                  "Redis CPU: floor / redis_exporter / streamlag", "exporter CPU: redis_exporter / streamlag",
                  "memory at rest: redis_exporter / streamlag", "redis_exporter's page (gzip)", "streamlag's page (gzip)"], lines)


# What streamlag is meant to reach: at most so many times what another side has.
GOALS = [
    ("sample, of the floor", 1.5, "sample", ("floor", "sample")),
    ("sample, of the floor, paced", 1.5, "sample", ("paced", "sample")),
    ("sample until its page is seen, of the floor, paced", 1.5, "until_seen", ("paced", "sample")),
    ("Redis CPU, of the floor", 1.2, "redis_cpu", ("floor", "redis_cpu")),
    ("Redis CPU, of the floor, paced", 1.2, "redis_cpu", ("paced", "redis_cpu")),
    ("exporter CPU, of redis_exporter's", 0.1, "cpu", ("peer", "cpu")),
    ("exporter CPU, of redis_exporter's at its best", 0.1, "cpu", ("best", "cpu")),
    ("exporter CPU with a scrape each, of redis_exporter's", 0.1, "cpu_scraped", ("peer", "cpu")),
    ("exporter CPU, of redis_exporter's scraped as seldom", 0.1, "cpu", ("peer", "paced_cpu")),
    ("exporter CPU with a scrape each, of redis_exporter's scraped as seldom", 0.1, "cpu_scraped", ("peer", "paced_cpu")),
    ("memory at rest, of redis_exporter's", 1.0, "rss", ("peer", "rss")),
]
SCRAPE_GOAL = 1.1


def goals(results):
    """Whether it did."""
    sizes = [with_serving(rounds) for rounds in results["sizes"].values()]

    def row(what, goal, pairs):
        cells = ["%s %s" % ("yes:" if ours <= goal * theirs else "**no:**", ratio(ours, theirs)) for ours, theirs in pairs]
        return ["%s, at most %g ×" % (what, goal), *cells]

    rows = [row(what, goal, [(sides["ours"][mine], sides[side][theirs]) for sides in sizes])
            for what, goal, mine, (side, theirs) in GOALS]
    for form in ("plain", "gzip"):
        for connections in CONNECTIONS[1:]:
            for share in ("p50", "p99"):
                load = "%s %d" % (form, connections)
                pairs = [[sides[side][load][share] for side in ("ours serving", "static serving")] for sides in sizes]
                what = "%s scrape %s, %d connections, of the static server's" % (form, share, connections)
                rows.append(row(what, SCRAPE_GOAL, pairs))
    return table(["goal", *results["sizes"]], rows)


def with_serving(rounds):
    """The medians, with the turns of serving taken together."""
    sides = merged([{name: side for name, side in one.items() if name != "serving"} for one in rounds])
    serving = [one["serving"] for one in rounds]
    for name in ("ours", "static"):
        sides[name + " serving"] = {
            what: merged([turn for one in serving for turn in one["turns"][name][what]])
            for what in serving[0]["turns"][name]}
    # Two processes of the program were measured, one polling often and one as it comes: the larger counts.
    for what in ("rss", "rss_peak"):
        sides["ours"][what] = max(sides["ours"][what], merged([one[what] for one in serving]))
    return sides


def rows(sides):
    floor, paced, peer, best, ours = (sides[name] for name in ("floor", "paced", "peer", "best", "ours"))

    def row(label, unit, of, at_floor=None, at_pace=None, best_of=None):
        peers, bests = of(peer), (best_of or of)(best)
        mine = of(ours)
        return [label, *(shown(value, unit) for value in (at_floor, at_pace, peers, bests, mine)),
                ratio(mine, at_floor), ratio(mine, at_pace), ratio(mine, peers), ratio(mine, bests)]

    yield row("sample", "s", lambda side: side["sample"], floor["sample"], paced["sample"])
    yield row("sample, as seldom as streamlag's", "s", lambda side: side.get("paced_sample", side["sample"]))
    yield row("sample until its page is seen", "s", lambda side: side.get("until_seen", side["sample"]),
              floor["sample"], paced["sample"])
    yield row("exporter CPU per sample", "s", lambda side: side["cpu"])
    yield row("exporter CPU per sample, as seldom", "s", lambda side: side.get("paced_cpu", side["cpu"]))
    yield row("exporter CPU per sample, scraped once", "s", lambda side: side.get("cpu_scraped", side["cpu"]))
    yield row("Redis CPU per sample", "s", lambda side: side["redis_cpu"], floor["redis_cpu"], paced["redis_cpu"])
    yield row("Redis CPU per sample, as seldom", "s", lambda side: side.get("paced_redis_cpu", side["redis_cpu"]))
    yield row("commands per sample", "", lambda side: side["commands"], floor["commands"], floor["commands"])
    mine, static = sides["ours serving"], sides["static serving"]
    for form in ("plain", "gzip"):
        for connections in CONNECTIONS:
            what = "%s %d" % (form, connections)
            if what not in mine:
                continue
            for share in ("p50", "p99"):
                theirs, bests = (side.get(what, {}).get(share) for side in (peer, best))
                yield ["%s scrape %s, %d connection%s" % (form, share, connections, "s" * (connections > 1)),
                       shown(static[what][share], "s"), "–", shown(theirs, "s"), shown(bests, "s"),
                       shown(mine[what][share], "s"), ratio(mine[what][share], static[what][share]), "–",
                       ratio(mine[what][share], theirs), ratio(mine[what][share], bests)]
    yield row("resident memory at rest", "B", lambda side: side["rss"])
    yield row("resident memory at most", "B", lambda side: side["rss_peak"])
    yield row("page", "B", lambda side: side["page_bytes"])
    yield row("page in gzip", "B", lambda side: side.get("gzip_bytes"))
    yield row("series", "", lambda side: side["series"])


def notes(rounds):
    lines = ["\n"]
    for name, told in (("peer", "redis_exporter"), ("ours", "streamlag")):
        each = [one[name] for one in rounds]
        calls = ", ".join("%s %s" % (call.upper().replace("|", " "), shown(count, "")) for call, count in
                          list(each[-1]["calls"].items())[:8])
        lines.append("%s: %s samples; the rounds' medians %s; other work on the machine %s of it; commands: %s.\n\n" % (
            told, " + ".join("%d" % one["samples"] for one in each), ", ".join(shown(one["sample"], "s") for one in each),
            ", ".join("%.0f %%" % max(0.0, 100 * one["foreign"]) for one in each), calls))
    return "".join(lines)[:-1]


def guest(results):
    rows = []
    for name, rounds in results["cases"].items():
        case = merged(rounds)
        rows.append([name, *(shown(case[share], "s") for share in ("p50", "p99", "p99.9")),
                     shown(max(one["max"] for one in rounds), "s"), shown(case["redis_cpu_share"], "%"),
                     shown(case["exporter_cpu_share"], "%"), shown(case["samples"], ""),
                     " / ".join("%.0f" % max(0.0, 100 * one["foreign"]) for one in rounds)])
    text = ("Measured %(when)s on %(machine)s, at the size %(size)s: %(rate)s requests a second for %(seconds)d s in each of "
            "%(rounds)d rounds.\n\n" % results)
    return text + table(["exporter", "p50", "p99", "p99.9", "longest", "Redis CPU", "exporter CPU", "samples",
                         "other work on the machine, %"], rows)


def sizing(results):
    """What one stream costs, by the difference between a size and the smallest one, and what a fleet would."""
    sizes = {size: with_serving(rounds) for size, rounds in results["sizes"].items()}
    small = sizes.get("small")
    costs, per_stream, measured = [], None, None
    for size, sides in sizes.items():
        if size == "small" or small is None:
            continue
        measured = size
        streams, groups, consumers = SIZES[size]
        ours = sides["ours"]
        per_stream = {what: (ours[what] - small["ours"][what]) / (streams - SIZES["small"][0])
                      for what in ("rss", "redis_cpu", "cpu", "page_bytes", "gzip_bytes", "series")}
        costs.append(["%d × %d" % (groups, consumers), "{:,}".format(streams), shown(per_stream["rss"], "B"),
                      shown(per_stream["redis_cpu"], "s"), shown(per_stream["cpu"], "s"),
                      shown(per_stream["page_bytes"], "B"), shown(per_stream["gzip_bytes"], "B"), shown(per_stream["series"], "")])
    if not per_stream:
        return "Not measured: it takes small and a larger size.\n"
    text = table(["groups × consumers", "measured at streams", "memory per stream", "Redis CPU per stream and sample",
                  "exporter CPU per stream and sample", "page per stream", "in gzip", "series per stream"], costs)
    return text + "\n" + fleet(measured, per_stream)


FLEET_STREAMS, FLEET_NODES, PER_EXPORTER = 1_000_000, 200, 10_000
# The default of poll.max-redis-share.
REDIS_SHARE = 0.05


def fleet(size, per_stream):
    """From the largest size that was measured."""
    per_node, exporters = FLEET_STREAMS // FLEET_NODES, FLEET_STREAMS // PER_EXPORTER
    rows = []
    for interval in (5, 15, 60):
        share = per_node * per_stream["redis_cpu"] / interval
        rows.append([
            "%d s" % interval, shown(share, "%"),
            "yes" if share <= REDIS_SHARE else "no: stretched to %s" % shown(per_node * per_stream["redis_cpu"] / REDIS_SHARE, "s"),
            shown(FLEET_STREAMS * per_stream["cpu"] / interval, ""),
            "{:,.0f}".format(interval / per_stream["cpu"] / 2),
            shown(FLEET_STREAMS * per_stream["gzip_bytes"] / interval, "B") + "/s"])
    text = ("%s streams over %d nodes, %s a node, as at the size %s; exporters with %s streams each are %d, with %s of memory in all, "
            "and %s series.\n\n" % (
                "{:,}".format(FLEET_STREAMS), FLEET_NODES, "{:,}".format(per_node), size, "{:,}".format(PER_EXPORTER), exporters,
                shown(FLEET_STREAMS * per_stream["rss"], "B"), "{:,.0f}".format(FLEET_STREAMS * per_stream["series"])))
    return text + table(["interval", "of a core of each Redis", "within 5 %", "cores for all exporters",
                         "streams that half a core of one exporter samples", "pages in gzip, all together"], rows)
