"""Fills a Redis with streams, groups and consumers. The same size always gives the same keys, ids, lags and pending entries.

Each stream s:NNNNN has ENTRIES entries of PAYLOAD bytes. Its groups g0, g1, ... have been delivered ever more of them, none of
them everything, so that each has a lag; the entries are dealt out among the consumers c0, c1, ..., and every second one is
acknowledged, so that each has pending entries.
"""

from resp import Connection, encode

# Streams, groups of each stream, consumers of each group.
SIZES = {"small": (3, 1, 3), "medium": (100, 2, 5), "large": (1000, 3, 5), "huge": (10000, 2, 3)}
ENTRIES, PAYLOAD = 20, 100
FIRST_ID = 1_700_000_000_000


def stream_name(n):
    return "s:%05d" % n


def delivered(group, groups):
    return ENTRIES * (group + 1) // (groups + 1)


def commands(streams, groups, consumers):
    for stream in map(stream_name, range(streams)):
        for n in range(ENTRIES):
            yield encode("XADD", stream, "%d-0" % (FIRST_ID + n), "p", (b"%d:" % n).ljust(PAYLOAD, b"x"))
        for group in range(groups):
            name, total = "g%d" % group, delivered(group, groups)
            yield encode("XGROUP", "CREATE", stream, name, "0")
            for consumer in range(consumers):
                yield encode("XGROUP", "CREATECONSUMER", stream, name, "c%d" % consumer)
                takes = total * (consumer + 1) // consumers - total * consumer // consumers
                if takes:
                    yield encode("XREADGROUP", "GROUP", name, "c%d" % consumer, "COUNT", takes, "STREAMS", stream, ">")
            acknowledged = ["%d-0" % (FIRST_ID + n) for n in range(0, total, 2)]
            yield encode("XACK", stream, name, *acknowledged)


def fill(port, size):
    """Fills the empty server there, and checks what it holds then: a wrong fill must not pass unseen."""
    streams, groups, consumers = SIZES[size]
    connection = Connection(port)
    try:
        connection.pipeline(commands(streams, groups, consumers))
        found = connection.call("DBSIZE")
        if found != streams:
            raise SystemExit("the server has %d keys, not %d" % (found, streams))
        for n, group in enumerate(connection.call("XINFO", "GROUPS", stream_name(streams - 1))):
            group = dict(zip(group[::2], group[1::2]))
            total = delivered(n, groups)
            expected = (consumers, total // 2, ENTRIES - total)
            if (group[b"consumers"], group[b"pending"], group.get(b"lag", ENTRIES - total)) != expected:
                raise SystemExit("group %d is %r, not %r" % (n, group, expected))
    finally:
        connection.close()
