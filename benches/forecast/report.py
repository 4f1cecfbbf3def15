#!/usr/bin/env python3
"""Writes the table of docs/forecast.md from what `cargo bench --bench forecast` measured.

    python3 -B benches/forecast/report.py target/forecast [--referee SEEDS] [--write docs/forecast.md]

--referee fits AutoETS, AutoTheta and MFLES (statsforecast and scikit-learn from PyPI) to the same series first: one origin of each of the first SEEDS seeds, the lag
every five minutes. Their forecasts are kept in referee.jsonl beside the others; what is there already is not made again.
"""

import argparse
import collections
import json
import pathlib
import random
import warnings

HORIZONS = [300, 900, 3600, 10800, 21600]
REFEREES = ["AutoETS", "AutoTheta", "MFLES"]
MEDIAN = 3
ORIGIN = 8
STEP = 300
DAY = 86400 // STEP
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
GROWTH = ["ramp", "daily", "weekly", "capacity_step", "leak", "trim"]
# What warnings.jsonl counts of each seed.
WARNED, WARNINGS, RIGHT = range(3)
# How often the seeds are drawn again to tell what may be chance, and in which share of these an aim is met where a miss may be.
SAMPLES = 1000
CHANCE = 0.05
# An error that is no more than this is nobody's concern: the naive forecast of what stands still has none.
NEGLIGIBLE = 0.02


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def season(family):
    """What a user who knows the workload would say: a day, a week, or the two hours that all batch periods divide."""
    return {"daily": [DAY], "weekly": [DAY, 7 * DAY], "batch": [7200 // STEP]}.get(family, [1])


def fit(folder, seeds):
    import numpy as np
    from statsforecast.models import MFLES, AutoETS, AutoTheta

    warnings.filterwarnings("ignore")
    ahead = max(HORIZONS) // STEP
    path = folder / "referee.jsonl"
    made = {(row["family"], row["seed"]) for row in lines(path)} if path.exists() else set()
    asked = [series for series in lines(folder / "series.jsonl") if series["seed"] < seeds and (series["family"], series["seed"]) not in made]
    with open(path, "a", encoding="utf-8") as out:
        # By seed: what is made before it is ended is of all families.
        for series in sorted(asked, key=lambda series: series["seed"]):
            family = series["family"]
            end = int((series["first_origin"] + ORIGIN * 3600) / STEP)
            lags = np.array([np.nan if lag is None else lag for lag in series["lags"][:end]], dtype=float)
            # The models take no gaps.
            known = ~np.isnan(lags)
            lags = np.interp(np.arange(len(lags)), np.arange(len(lags))[known], lags[known])
            short = lags[-DAY:]
            seasons = season(family)
            models = {
                "AutoETS": (AutoETS(season_length=1 if seasons[0] > 24 else seasons[0]), short),
                "AutoTheta": (AutoTheta(season_length=seasons[0] if seasons[0] <= 24 else DAY), lags[-3 * DAY:] if seasons[0] > 24 else short),
                "MFLES": (MFLES(season_length=seasons if seasons != [1] else None), lags if seasons != [1] else short),
            }
            for name, (model, history) in models.items():
                try:
                    mean = np.maximum(model.forecast(y=history, h=ahead)["mean"], 0)
                except Exception as error:  # pylint: disable=broad-except
                    print(f"{family} {series['seed']} {name}: {error}")
                    continue
                points = {str(horizon): round(float(mean[horizon // STEP - 1]), 1) for horizon in HORIZONS}
                out.write(json.dumps({"family": family, "seed": series["seed"], "model": name, "points": points}) + "\n")
            out.flush()


def error(forecast, row):
    return abs(forecast - row["actual"]) / row["scale"]


def error_of(rows, of):
    """The mean error of the medians of `of`, "ours" or "oracle", or of the naive forecast or predict_linear."""
    return mean(error(row[of][MEDIAN] if of in ("ours", "oracle") else row[of], row) for row in rows)


def share_of_samples(rows, met):
    """In which share of samples an aim is met: bootstrap, whole seeds drawn with replacement, because the forecasts of one seed are alike."""
    seeds = collections.defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append(row)
    draw = random.Random(0)
    samples = (draw.choices(list(seeds), k=len(seeds)) for _ in range(SAMPLES))
    return mean(met([row for seed in sample for row in seeds[seed]], "ours") for sample in samples)


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def coverage(rows, low, high, of="ours"):
    """Percent of outcomes within an interval: those on its ends counted out, and in. Lags are whole numbers: an interval may be one of them."""
    return [mean(100 * inside(row) for row in rows) for inside in (lambda row: row[of][low] < row["actual"] < row[of][high], lambda row: row[of][low] <= row["actual"] <= row[of][high])]


def show_coverage(values):
    out, into = (f"{value:.0f}" for value in values)
    return f"{into}%" if out == into else f"{out}–{into}%"


def is_off(values, low, high):
    out, into = values
    return into < low or out > high


def show(value, form="{:.2f}"):
    return "–" if value is None or value != value else form.format(value)


def total(rows, of, count):
    return sum(row[of][count] for row in rows)


def precision(rows, of):
    """The share of warnings that were right."""
    warnings_of = total(rows, of, WARNINGS)
    return total(rows, of, RIGHT) / warnings_of if warnings_of else None


def recall(rows, of):
    """The share of events that were warned of."""
    events = sum(row["events"] for row in rows)
    return total(rows, of, WARNED) / events if events else None


def table(folder):
    cells = collections.defaultdict(list)
    for row in lines(folder / "forecasts.jsonl"):
        cells[row["family"], row["horizon"]].append(row)
    if any(row.get("oracle") is None for rows in cells.values() for row in rows):
        raise SystemExit(f"{folder}/forecasts.jsonl has no oracle: make it with --oracle 200")
    referees = collections.defaultdict(dict)
    if (folder / "referee.jsonl").exists():
        for row in lines(folder / "referee.jsonl"):
            referees[row["family"], row["seed"]][row["model"]] = row["points"]
    text = [
        "| family | horizon | answered | streamlag | oracle | naive | predict_linear | in 80% | in 90% | in 95% | beside the referees: streamlag | " + " | ".join(REFEREES) + " |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | " + "--- | " * (len(REFEREES) - 1) + "--- |",
    ]
    missed, perhaps, beyond = [], [], []

    def judge(rows, met, aim):
        """Files an aim that is missed, by whether the oracle meets it and whether chance explains it."""
        if met(rows, "ours"):
            return
        if not met(rows, "oracle"):
            beyond.append(aim)
            return
        share = share_of_samples(rows, met)
        (missed if share < CHANCE else perhaps).append(f"{aim}; met in {100 * share:.0f}% of samples")

    for (family, horizon), rows in cells.items():
        done = [row for row in rows if row["ours"]]
        ours, oracle, naive, linear = (error_of(done, of) for of in ("ours", "oracle", "naive", "linear"))
        if not done:
            text.append("| " + " | ".join([family, f"{horizon // 60} min", "0%"] + ["–"] * 11) + " |")
            continue
        in_80, in_90, in_95 = (coverage(done, MEDIAN - pair, MEDIAN + pair) for pair in (1, 2, 3))
        judged = [row for row in done if row["origin"] == ORIGIN and len(referees[family, row["seed"]]) == len(REFEREES)]
        beside, oracle_beside = (error_of(judged, of) for of in ("ours", "oracle"))
        referee_error = lambda rows, name: mean(error(referees[row["family"], row["seed"]][name][str(row["horizon"])], row) for row in rows)
        others = [referee_error(judged, name) for name in REFEREES]
        best = min(value for value in [naive, linear] if value is not None)
        cell = [family, f"{horizon // 60} min", f"{100 * len(done) / len(rows):.0f}%", show(ours), show(oracle), show(naive), show(linear), *(show_coverage(values) for values in (in_80, in_90, in_95)), show(beside)]
        text.append("| " + " | ".join(cell + [show(value) for value in others]) + " |")
        at = f"{family} at {horizon // 60} min"
        judge(
            done,
            lambda rows, of: error_of(rows, of) <= max(1.1 * error_of(rows, "naive"), NEGLIGIBLE),
            f"{at}: error {ours / max(naive, 1e-9):.2f} of the naive one, the oracle's {oracle / max(naive, 1e-9):.2f} (aim: at most 1.1)",
        )
        if family in GROWTH:
            judge(
                done,
                lambda rows, of: error_of(rows, of) <= 0.8 * min(error_of(rows, "naive"), error_of(rows, "linear")),
                f"{at}: error {ours / best:.2f} of the better of naive and predict_linear, the oracle's {oracle / best:.2f} (aim: at most 0.8)",
            )
        if family in GROWTH and judged:
            least, name = min(zip(others, REFEREES))
            judge(
                judged,
                lambda rows, of: error_of(rows, of) <= 0.8 * min(referee_error(rows, name) for name in REFEREES),
                f"{at}: error {beside / max(least, 1e-9):.2f} of {name}'s, the oracle's {oracle_beside / max(least, 1e-9):.2f} (aim: at most 0.8)",
            )
        for values, pair, share, low, high in [(in_80, 1, 80, 75, 85), (in_95, 3, 95, 92, 98)]:
            best_values = coverage(done, MEDIAN - pair, MEDIAN + pair, "oracle")
            judge(
                done,
                lambda rows, of: not is_off(coverage(rows, MEDIAN - pair, MEDIAN + pair, of), low, high),
                f"{at}: {show_coverage(values)} in the {share}% interval, {show_coverage(best_values)} in the oracle's (aim: {low} to {high})",
            )
    warned = [
        "| family | warned of | events | streamlag: precision | recall | warnings | oracle: precision | recall | warnings | predict_linear: precision | recall | warnings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cells = collections.defaultdict(list)
    for row in lines(folder / "warnings.jsonl"):
        cells[row["family"], row["what"]].append(row)
    for (family, what), rows in cells.items():
        side = lambda of: [show(precision(rows, of)), show(recall(rows, of)), f"{total(rows, of, WARNINGS):.0f}"]
        events = f"{sum(row['events'] for row in rows):.0f}"
        warned.append("| " + " | ".join([family, what, events, *side("ours"), *side("oracle"), *side("linear")]) + " |")
        for name, measure in [("precision", precision), ("recall", recall)]:
            judge(
                rows,
                lambda rows, of: (measure(rows, of) or 0) >= 0.9,
                f"{family}, {what}: {name} of warnings {show(measure(rows, 'ours'))}, the oracle's {show(measure(rows, 'oracle'))} (aim: at least 0.9)",
            )
    return text, warned, missed, perhaps, beyond


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--referee", type=int, metavar="SEEDS")
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.referee:
        fit(arguments.folder, arguments.referee)
    text, warned, *aims = table(arguments.folder)
    titles = ["Aims that are missed:", "Aims that are missed, which may be chance:", "Aims that the oracle misses as well:"]
    body = "\n".join(text + [""] + warned + [line for title, lists in zip(titles, aims) for line in ["", title, "", *(f"- {aim}" for aim in lists)]])
    if not arguments.write:
        print(body)
        return
    document = arguments.write.read_text(encoding="utf-8")
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    arguments.write.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
