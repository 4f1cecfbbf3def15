"""Medians over rounds, and numbers as people read them."""

import statistics


def merged(rounds):
    """The same shape with the median of each number; of anything else the last."""
    last = rounds[-1]
    if isinstance(last, dict):
        keys = dict.fromkeys(key for one in rounds for key in one)
        return {key: merged([one[key] for one in rounds if key in one]) for key in keys}
    rounds = [one for one in rounds if one is not None]
    if isinstance(last, (int, float)) and not isinstance(last, bool):
        return statistics.median(rounds)
    return last


def shown(value, unit):
    if value is None:
        return "–"
    if unit == "s":
        scale, unit = (1, "s") if value >= 1 else (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
        return "%s %s" % (digits(value * scale), unit)
    if unit == "B":
        scale, unit = (1e-9, "GB") if value >= 1e9 else (1e-6, "MB") if value >= 1e6 else (1e-3, "kB")
        return "%s %s" % (digits(value * scale), unit)
    if unit == "%":
        return "%s %%" % digits(value * 100)
    return digits(value)


def digits(value):
    """Three of them that count."""
    if abs(value) >= 100 or value == int(value):
        return "{:,.0f}".format(value)
    return "%.3g" % value


def ratio(ours, theirs):
    if not ours or not theirs:
        return "–"
    return "%.2f ×" % (ours / theirs) if ours / theirs >= 0.1 else "%s ×" % digits(ours / theirs)


def table(head, rows):
    lines = ["| %s |" % " | ".join(row) for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"
