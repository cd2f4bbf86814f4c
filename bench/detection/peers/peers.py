"""Run one peer, as packaged, on the series written by `bellwether-detection export`.

    python peers.py river|gbstats|evidently|nannyml SERIES OUT

Each peer uses its defaults unless its name in the table says otherwise. Delays are minutes from the change to the first
alarm after it; alarms are counted by their starts, after the four weeks of the past.
"""

import importlib.metadata
import json
import os
import random
import sys
import warnings

warnings.filterwarnings("ignore")

# Disable telemetry.
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

STEP = 5


def runs_of(failed, runs, chance):
    """Return zeros and ones for five minutes, with the failures in random order."""
    order = [1] * failed + [0] * (runs - failed)
    chance.shuffle(order)
    return order


def hours(series):
    """Yield sums by hour: (minute at its end, failed, runs)."""
    for hour in range(len(series) // 12):
        part = series[12 * hour : 12 * hour + 12]
        yield 60 * (hour + 1), sum(failed for failed, _ in part), sum(runs for _, runs in part)


def begins(moments):
    """Count starts of hourly alarms."""
    moments = sorted(moments)
    return sum(1 for place, moment in enumerate(moments) if place == 0 or moment - moments[place - 1] > 60)


def past_answers(past, detector, alarms_of, most=None):
    """Yield one result per scenario, from a function that returns the times at which a series alarms."""
    for scenario in past:
        seeds = scenario["seeds"][:most]
        if scenario["scenario"] == "D0 no change":
            alarms = [begins(alarms_of(series, scenario["past_minutes"], None, seed)) for seed, (_, series) in enumerate(seeds)]
            weeks = (len(seeds[0][1]) * STEP - scenario["past_minutes"]) / (7 * 1440)
            yield {"scenario": scenario["scenario"], "traffic": scenario["traffic"], "detector": detector, "alarms": alarms, "weeks": weeks}
            continue
        delays = []
        for seed, (change, series) in enumerate(seeds):
            last = change + scenario["within_minutes"]
            after = [m for m in alarms_of(series, scenario["past_minutes"], (change, last), seed) if change < m <= last]
            delays.append(min(after) - change if after else None)
        yield {"scenario": scenario["scenario"], "traffic": scenario["traffic"], "detector": detector, "delays": delays}


def river(given):
    from river import drift

    version = importlib.metadata.version("river")
    for name, make in (
        ("ADWIN", drift.ADWIN),
        ("PageHinkley", drift.PageHinkley),
        ("DDM", drift.binary.DDM),
        ("HDDM_A", drift.binary.HDDM_A if hasattr(drift.binary, "HDDM_A") else drift.binary.HDDMA),
    ):

        def alarms_of(series, past, span, seed, make=make):
            chance, detector, found = random.Random(seed), make(), []
            for place, (failed, runs) in enumerate(series):
                minute = STEP * (place + 1)
                for value in runs_of(failed, runs, chance):
                    detector.update(value)
                    if detector.drift_detected and minute > past:
                        found.append(minute)
            return found

        yield from past_answers(given["past"], f"river {version}: {name}", alarms_of)


def gbstats(given):
    from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
    from gbstats.models.statistics import ProportionStatistic

    version = importlib.metadata.version("gbstats")
    for alpha in (0.05, 0.01):
        config = SequentialConfig(alpha=alpha)
        for release in given["releases"]:
            delays = []
            for steps in release["seeds"]:
                delay = None
                for place, (runs_a, failed_a, runs_b, failed_b) in enumerate(steps):
                    # GrowthBook shows no result below these counts.
                    if min(runs_a, runs_b) < 30 or failed_a + failed_b < 5 or failed_a == 0:
                        continue
                    a = ProportionStatistic(n=runs_a, sum=failed_a)
                    b = ProportionStatistic(n=runs_b, sum=failed_b)
                    if SequentialTwoSidedTTest(a, b, config).compute_result().ci[0] > 0:
                        delay = STEP * (place + 1)
                        break
                delays.append(delay)
            yield {
                "scenario": release["scenario"],
                "traffic": release["traffic"],
                "detector": f"GrowthBook gbstats {version}: sequential, α {alpha * 100:.0f} %, each 5 min",
                "delays": delays,
            }


def evidently(given):
    import pandas
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    version = importlib.metadata.version("evidently")
    definition = DataDefinition(categorical_columns=["failed"])

    def dataset(failed, runs):
        frame = pandas.DataFrame({"failed": [1] * failed + [0] * (runs - failed)})
        return Dataset.from_pandas(frame, data_definition=definition)

    def drifts(reference, failed, runs):
        if runs < 10:
            return False
        snapshot = Report([ValueDrift(column="failed")]).run(dataset(failed, runs), reference).dict()
        [metric] = snapshot["metrics"]
        assert "Z-test" in metric["metric_name"], metric
        return metric["value"] < 0.05

    def alarms_of(series, past, span, seed):
        # The reference is a thousand rows of the past, as in the package's defaults.
        before = series[: past // STEP]
        failed, runs = (sum(step[place] for step in before) for place in (0, 1))
        reference = dataset(sum(random.Random(seed).random() < failed / runs for _ in range(1000)), 1000)
        found = []
        for minute, failed, runs in hours(series):
            if minute <= past or (span and minute <= span[0]):
                continue
            if drifts(reference, failed, runs):
                found.append(minute)
                if span:
                    break
        return found

    name = f"Evidently {version}: hourly, z-test p < 5 %, 1000 rows of reference"
    yield from past_answers([s for s in given["past"] if s["scenario"] == "D0 no change"], name, alarms_of, most=1)
    yield from past_answers([s for s in given["past"] if s["scenario"] != "D0 no change"], name, alarms_of)
    for release in given["releases"][:2]:
        delays = []
        for steps in release["seeds"][:10]:
            first = next(step for step in steps if step[0] >= 1000)
            reference, delay, before = dataset(round(1000 * first[1] / first[0]), 1000), None, (0, 0)
            for hour in range(24):
                _, _, runs, failed = steps[12 * hour + 11]
                if drifts(reference, failed - before[1], runs - before[0]):
                    delay = 60.0 * (hour + 1)
                    break
                before = (runs, failed)
            delays.append(delay)
        yield {"scenario": release["scenario"], "traffic": release["traffic"], "detector": name, "delays": delays}


def nannyml(given):
    import numpy
    import pandas
    from nannyml import SummaryStatsAvgCalculator

    version = importlib.metadata.version("nannyml")

    def frame(series, first):
        failed, runs = (numpy.array([step[place] for step in series]) for place in (0, 1))
        start = pandas.Timestamp("2026-11-02") + pandas.to_timedelta(STEP * (first + numpy.arange(len(series))), unit="min")
        values = numpy.concatenate([[1.0] * f + [0.0] * (n - f) for f, n in zip(failed, runs)])
        return pandas.DataFrame({"at": numpy.repeat(start.values, runs), "failed": values})

    for name, period, minutes in (("hourly", "h", 60), ("daily", "D", 1440)):

        def alarms_of(series, past, span, seed, period=period, minutes=minutes):
            places = past // STEP
            calculator = SummaryStatsAvgCalculator(column_names=["failed"], timestamp_column_name="at", chunk_period=period)
            calculator.fit(frame(series[:places], 0))
            found = calculator.calculate(frame(series[places:], places)).filter(period="analysis").to_df()
            alerts = found[[c for c in found.columns if c[-1] == "alert" or c == ("failed", "alert")]].iloc[:, 0]
            ends = [c for c in found.columns if c[-1] == "end_date"]
            # A chunk is known once it has ended.
            stamps = pandas.to_datetime(found[ends[0]]).dt.floor(period) + pandas.Timedelta(minutes=minutes)
            moments = (stamps - pandas.Timestamp("2026-11-02")).dt.total_seconds() / 60
            return [float(moment) for moment, alert in zip(moments, alerts) if alert]

        yield from past_answers(given["past"], f"NannyML {version}: mean, {name}", alarms_of)


def main():
    peer, source, target = sys.argv[1:4]
    with open(source) as file:
        given = json.load(file)
    answers = list({"river": river, "gbstats": gbstats, "evidently": evidently, "nannyml": nannyml}[peer](given))
    with open(target, "w") as file:
        json.dump({"packages": {peer: importlib.metadata.version(peer)}, "answers": answers}, file)
    for answer in answers:
        print(answer["scenario"], answer["detector"], answer.get("delays", answer.get("alarms")), file=sys.stderr)


main()
