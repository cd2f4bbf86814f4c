"""Compares the SQL functions for detection with scipy, statsmodels and confseq on random cases.

    python check.py PROGRAM ROOT [SEED]

PROGRAM is the built `bellwether`, ROOT the root of any lake. Each check draws cases from the seed, evaluates them with
`bellwether sql`, and compares the results with an independent library. Prints one line per check and every case that
differs, and exits with 1 if any does.
"""

import json
import math
import subprocess
import sys

import numpy as np
import scipy
import statsmodels
from scipy import special, stats
from scipy.spatial import distance
from statsmodels.stats import contingency_tables, multitest, proportion

try:
    from confseq import boundaries
except ImportError:
    boundaries = None

PROGRAM, ROOT = sys.argv[1:3]
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
CASES = 200
CHECKS = []


def check(library):
    """Marks a function that yields (call, value) pairs."""

    def mark(function):
        CHECKS.append((library, function))
        return function

    return mark


def ask(statement):
    command = [PROGRAM, "sql", "--root", ROOT, "--format", "json", "-"]
    ended = subprocess.run(command, input=statement, capture_output=True, text=True, timeout=300)
    if ended.returncode != 0:
        sys.exit(f"{statement[:2000]}\n{ended.stderr}")
    rows = json.loads(ended.stdout)
    return rows


def literal(value):
    if isinstance(value, (list, np.ndarray)):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    # An exponent makes it a double, with every digit.
    return f"{float(value):.17e}"


def call(name, *arguments):
    return f"{name}({', '.join(literal(argument) for argument in arguments)})"


def poisson_counts(random, bins, mean):
    return random.poisson(mean * random.dirichlet(np.ones(bins)) * bins)


@check("scipy nchypergeom_fisher, hypergeom")
def e2x2(random):
    for _ in range(CASES):
        total_a, total_b = (int(10 ** random.uniform(0.5, 4)) for _ in range(2))
        s_a, s_b = (random.binomial(n, random.uniform(0.01, 0.5)) for n in (total_a, total_b))
        psi, psi0 = random.uniform(0.5, 5), random.choice([1.0, 1.15])
        events, total = s_a + s_b, total_a + total_b
        null = (
            stats.hypergeom.logpmf(s_b, total, events, total_b)
            if psi0 == 1.0
            else stats.nchypergeom_fisher.logpmf(s_b, total, events, total_b, psi0)
        )
        found = stats.nchypergeom_fisher.logpmf(s_b, total, events, total_b, psi)
        # scipy computes the logarithm of the probability, which loses the digits of small ones.
        if min(found, null) > -300:
            yield call("e2x2", s_a, total_a, s_b, total_b, psi, psi0), found - null, 1e-9


@check("scipy logsumexp, nchypergeom_fisher")
def log_e_of_a_grid(random):
    ratios = np.array([1.2, 1.4, 1.7, 2.2, 3.0, 5.0])
    for _ in range(CASES // 10):
        tables = [(random.binomial(200, 0.1), 200, random.binomial(80, 0.15), 80) for _ in range(5)]
        margin = random.choice([1.0, 1.1, 1.3])
        sums = np.zeros(len(ratios))
        for s_a, n_a, s_b, n_b in tables:
            at = lambda psi: stats.nchypergeom_fisher.logpmf(s_b, n_a + n_b, s_a + s_b, n_b, psi)
            sums += np.array([at(margin * ratio) - at(margin) for ratio in ratios])
        rows = ", ".join(f"({', '.join(map(str, table))}, {literal(margin)})" for table in tables)
        query = f"(SELECT e2x2_log_e(a, b, c, d, m) FROM (VALUES {rows}) AS t(a, b, c, d, m))"
        yield query, special.logsumexp(sums) - math.log(len(ratios)), 1e-9


@check("statsmodels Table2x2 (the estimate lies inside)")
def odds_ratio_interval(random):
    for _ in range(CASES // 4):
        s_a, s_b = random.binomial(500, 0.1), random.binomial(400, 0.1)
        table = np.array([[s_b, 400 - s_b], [s_a, 500 - s_a]])
        odds = contingency_tables.Table2x2(table, shift_zeros=False).oddsratio
        low = call("odds_ratio_low", [s_a], [500], [s_b], [400])
        high = call("odds_ratio_high", [s_a], [500], [s_b], [400])
        yield f"CASE WHEN {low} < {literal(odds)} AND {literal(odds)} < {high} THEN 1.0 ELSE 0.0 END", 1.0, 0


@check("numpy, by the formula of Turner, Ly, Grünwald")
def histograms(random):
    for _ in range(CASES // 4):
        bins = random.integers(2, 12)
        reference, a, b = poisson_counts(random, bins, 50), poisson_counts(random, bins, 8), poisson_counts(random, bins, 4)
        if a.sum() == 0 or b.sum() == 0:
            continue
        pi = (reference + 1 / bins) / (reference.sum() + 1)
        w_a, w_b = a.sum() / (a.sum() + b.sum()), b.sum() / (a.sum() + b.sum())
        ranks = np.cumsum(pi) - pi / 2
        scores = [delta * math.sqrt(12) * (ranks - 0.5) for delta in (0.05, 0.1, 0.2, 0.4, 0.8)]
        scores += [math.log(odds) * (ranks > 0.95) for odds in (1.5, 2.5, 5.0)]
        scores += [math.log(odds) * (ranks > 0.99) for odds in (2.0, 4.0, 10.0)]
        increments = []
        for score in scores:
            theta_a, theta_b = pi * np.exp(-w_b * score), pi * np.exp(w_a * score)
            theta_a, theta_b = theta_a / theta_a.sum(), theta_b / theta_b.sum()
            null = w_a * theta_a + w_b * theta_b
            increments.append((a * np.log(theta_a / null) + b * np.log(theta_b / null)).sum())
        value = special.logsumexp(increments) - math.log(len(increments))
        yield f"log_e({call('ehist_increments', a, b, reference)})", value, 1e-9


@check("scipy logsumexp")
def drift(random):
    ratios = np.array([1.2, 1.4, 1.8, 2.5, 4.0, 8.0])
    for _ in range(CASES):
        runs, rate = int(10 ** random.uniform(0, 6)), random.uniform(0.001, 0.6)
        events = random.binomial(runs, rate)
        q = rate * ratios / (1 - rate + rate * ratios)
        increments = events * np.log(q / rate) + (runs - events) * np.log((1 - q) / (1 - rate))
        value = special.logsumexp(increments) - math.log(len(ratios))
        yield f"log_e({call('bernoulli_increments', events, runs, rate)})", value, 1e-9


@check("scipy poisson")
def poisson(random):
    for _ in range(CASES):
        runs, rate, ratio = int(10 ** random.uniform(0, 6)), 10 ** random.uniform(-5, -2), random.uniform(1.1, 30)
        events = random.poisson(runs * rate)
        value = stats.poisson.logpmf(events, runs * rate * ratio) - stats.poisson.logpmf(events, runs * rate)
        yield call("pois_llr", events, runs, rate, ratio), value, 1e-9


@check("scipy gamma")
def rate_bound(random):
    for _ in range(CASES):
        events, runs, confidence = int(random.integers(0, 200)), int(random.integers(1, 10**6)), random.uniform(0.5, 0.999)
        yield call("rate_bound", events, runs, confidence), stats.gamma.ppf(confidence, events + 1) / runs, ("relative", 1e-9)


@check("scipy binom")
def binomial_tail(random):
    for _ in range(CASES):
        runs, rate = int(10 ** random.uniform(0, 6)), random.uniform(0.0001, 0.5)
        events = int(stats.binom.ppf(random.uniform(0.01, 0.9999999), runs, rate))
        yield call("binomial_tail", events, runs, rate), stats.binom.sf(events - 1, runs, rate), ("relative", 1e-8)


@check("scipy nbinom, poisson")
def quiet_tail(random):
    for _ in range(CASES):
        expected, over = 10 ** random.uniform(0, 4), random.choice([1.0, 1.5, 4.0])
        runs = int(expected * random.uniform(0, 1.5))
        value = (
            stats.poisson.cdf(runs, expected)
            if over == 1.0
            else stats.nbinom.cdf(runs, expected / (over - 1), 1 / over)
        )
        yield call("quiet_tail", runs, expected, over), value, ("relative", 1e-8)


def merged(reference, current):
    """Merges bins from the left until each expects 5 of the smaller side."""
    share = min(reference.sum(), current.sum()) / (reference.sum() + current.sum())
    bins, open_ = [], np.zeros(2)
    for pair in zip(reference, current):
        open_ += pair
        if share * open_.sum() >= 5:
            bins.append(open_.copy())
            open_[:] = 0
    if not bins:
        return np.array([open_])
    bins[-1] += open_
    return np.array(bins)


def two_histograms(random):
    for _ in range(CASES // 2):
        bins = random.integers(2, 15)
        reference, current = poisson_counts(random, bins, 60), poisson_counts(random, bins, 30)
        if reference.sum() and current.sum():
            yield reference, current


@check("scipy jensenshannon")
def js(random):
    for reference, current in two_histograms(random):
        p, q = (merged(reference, current) + 0.5).T
        yield call("js", reference, current), distance.jensenshannon(p, q), 1e-9


@check("numpy and scipy chi2")
def psi(random):
    for reference, current in two_histograms(random):
        bins = merged(reference, current)
        p, q = (bins + 0.5).T / (bins + 0.5).sum(axis=0)[:, None]
        value = ((p - q) * np.log(p / q)).sum()
        yield call("psi", reference, current), value, 1e-9
        scale = 1 / reference.sum() + 1 / current.sum()
        p_value = stats.chi2.sf(value / scale, len(bins) - 1) if len(bins) > 1 else 1.0
        yield call("psi_p", reference, current), p_value, ("relative", 1e-8)


@check("scipy wasserstein_distance")
def w1(random):
    for reference, current in two_histograms(random):
        places = np.arange(len(reference))
        mean = np.average(places, weights=reference)
        deviation = math.sqrt(np.average((places - mean) ** 2, weights=reference)) or 1.0
        value = stats.wasserstein_distance(places, places, reference, current) / deviation
        yield call("w1", reference, current), value, 1e-9


@check("numpy, 20,000 simulated Brownian bridges")
def w1_law(random):
    for reference, current in list(two_histograms(random))[:10]:
        common = np.cumsum(reference + current)[:-1] / (reference + current).sum()
        common = common[(common > 0) & (common < 1)]
        if len(common) == 0:
            continue
        covariance = np.minimum.outer(common, common) - np.outer(common, common)
        sums = np.abs(random.multivariate_normal(np.zeros(len(common)), covariance, 20000, check_valid="ignore")).sum(axis=1)
        scale = math.sqrt(1 / reference.sum() + 1 / current.sum())
        found = np.abs(np.cumsum(reference / reference.sum() - current / current.sum())).sum() / scale
        yield call("w1_p", reference, current), (sums >= found).mean(), ("absolute", 0.02)


@check("scipy chi2")
def psi_threshold(random):
    for _ in range(CASES):
        n, m, bins, alpha = (*map(int, random.integers(20, 10**6, 2)), int(random.integers(2, 60)), random.uniform(1e-6, 0.2))
        yield call("psi_threshold", n, m, bins, alpha), (1 / n + 1 / m) * stats.chi2.isf(alpha, bins - 1), 1e-9


@check("scipy dirichlet_multinomial, multinomial")
def srm(random):
    for _ in range(CASES):
        arms = random.integers(2, 5)
        shares = random.dirichlet(np.ones(arms) * 3)
        counts = random.multinomial(int(10 ** random.uniform(0, 4)), random.dirichlet(shares * 50))
        value = stats.dirichlet_multinomial.logpmf(counts, 100 * shares, counts.sum())
        value -= stats.multinomial.logpmf(counts, counts.sum(), shares)
        yield call("srm", counts, shares), value, 1e-9


@check("statsmodels multipletests (Benjamini–Hochberg of 1/e is e-BH)")
def e_bh(random):
    for _ in range(CASES // 10):
        log_e = random.normal(1, 4, int(random.integers(1, 40)))
        alpha = random.choice([0.01, 0.05, 0.2])
        expected = multitest.multipletests(np.exp(-log_e), alpha, method="fdr_bh")[0].sum()
        rows = ", ".join(f"({literal(value)})" for value in log_e)
        alarms = f"(SELECT e_bh(x, {literal(alpha)}) OVER () AS alarm FROM (VALUES {rows}) AS t(x))"
        yield f"(SELECT CAST(count(*) FILTER (WHERE alarm) AS DOUBLE) FROM {alarms})", float(expected), 0


@check("statsmodels proportion_confint")
def wilson(random):
    for _ in range(CASES):
        total = int(10 ** random.uniform(0, 6))
        successes = random.binomial(total, random.uniform(0, 1))
        low, high = proportion.proportion_confint(successes, total, method="wilson")
        yield call("wilson_low", successes, total), low, 1e-9
        yield call("wilson_high", successes, total), high, 1e-9


@check("scipy logsumexp")
def log_sums(random):
    for _ in range(CASES // 10):
        values = random.normal(0, 300, int(random.integers(1, 60)))
        rows = ", ".join(f"({literal(value)})" for value in values)
        yield f"(SELECT log_sum_exp(x) FROM (VALUES {rows}) AS t(x))", special.logsumexp(values), 1e-12
        yield f"(SELECT log_mean_exp(x) FROM (VALUES {rows}) AS t(x))", special.logsumexp(values) - math.log(len(values)), 1e-12


@check("numpy, by the recursion of Shin, Ramdas, Rinaldo")
def esr(random):
    for _ in range(CASES // 10):
        increments = random.normal(-0.2, 1, (30, 3))
        m = np.zeros(3)
        for row in increments:
            m = (1 + m) * np.exp(row)
        rows = ", ".join(f"({n}, {literal(row)})" for n, row in enumerate(increments))
        inner = f"(SELECT t, esr(x) OVER (ORDER BY t) AS sr FROM (VALUES {rows}) AS v(t, x))"
        yield f"(SELECT sr FROM {inner} WHERE t = 29)", math.log(m.mean()), 1e-9


@check("numpy, by the formulas of Kitagawa and Adtributor")
def attribution(random):
    for _ in range(CASES // 10):
        slices = int(random.integers(2, 8))
        n = random.integers(20, 2000, (2, slices))
        s = random.binomial(n, random.uniform(0.02, 0.4, (2, slices)))
        if 0 in s.sum(axis=1):
            continue
        shares, rates, whole = n / n.sum(axis=1)[:, None], s / n, s.sum(axis=1) / n.sum(axis=1)
        mix = (shares[1] - shares[0]) * (rates.mean(axis=0) - whole.mean())
        rate = (rates[1] - rates[0]) * shares.mean(axis=0)
        scale = n[1].sum() / n[0].sum()
        f1, f2 = s[0] * scale, n[0] * scale
        power = ((s[1] - f1) * f2.sum() - (n[1] - f2) * f1.sum()) / (f2.sum() * (f2.sum() + n[1] - f2))
        jensen = lambda p, q: 0.5 * (special.xlogy(p, 2 * p / (p + q)) + special.xlogy(q, 2 * q / (p + q)))
        with np.errstate(invalid="ignore"):
            surprise = np.nan_to_num(jensen(s[0] / s[0].sum(), s[1] / s[1].sum())) + jensen(*shares)
        rows = ", ".join(f"({k}, {s[0][k]}, {n[0][k]}, {s[1][k]}, {n[1][k]})" for k in range(slices))
        k = int(random.integers(slices))
        for name, value in (("mix_effect", mix), ("rate_effect", rate), ("explanatory_power", power / power.sum()), ("surprise", surprise)):
            inner = f"(SELECT k, {name}(a, b, c, d) OVER () AS x FROM (VALUES {rows}) AS t(k, a, b, c, d))"
            yield f"(SELECT x FROM {inner} WHERE k = {k})", value[k], 1e-9


@check("confseq normal_mixture_bound")
def confidence_sequences(random):
    if boundaries is None:
        return
    for _ in range(CASES):
        n, tightest, alpha = 10 ** random.uniform(1.5, 5), 10 ** random.uniform(2, 4), random.uniform(0.001, 0.2)
        two = boundaries.normal_mixture_bound(n, alpha, tightest, alpha, False)
        # For n values of variance 1, the standard error of the mean is 1/√n and the bound of the sum is n times the half-width.
        yield call("acs_halfwidth", 1 / math.sqrt(n), n, tightest, alpha, 2), two / n, 1e-9
        one = boundaries.normal_mixture_bound(n, alpha, tightest, alpha, True)
        yield call("acs_log_e", one / n, 1 / math.sqrt(n), n, 0.0, alpha, tightest), -math.log(alpha), 1e-9


def near(found, expected, tolerance):
    if isinstance(tolerance, tuple):
        kind, share = tolerance
        return abs(found - expected) <= share * (abs(expected) if kind == "relative" else 1.0)
    return abs(found - expected) <= tolerance * max(1.0, abs(expected))


def main():
    versions = f"scipy {scipy.__version__}, statsmodels {statsmodels.__version__}, numpy {np.__version__}"
    print(f"{versions}, confseq {'is installed' if boundaries else 'is not installed: skipped'}; seed {SEED}")
    compared, differs = 0, 0
    for library, function in CHECKS:
        random = np.random.default_rng([SEED, CHECKS.index((library, function))])
        cases = list(function(random))
        worst = 0.0
        # Longer statements would take too long to plan.
        for start in range(0, len(cases), 50):
            part = cases[start : start + 50]
            columns = ", ".join(f"{case[0]} AS c{n}" for n, case in enumerate(part))
            [row] = ask(f"SELECT {columns}")
            for n, (text, expected, tolerance) in enumerate(part):
                found = row.get(f"c{n}")
                if found is None or not near(float(found), expected, tolerance):
                    print(f"DIFFERS {function.__name__}: {text} is {found}, {library} has {expected}")
                    differs += 1
                else:
                    worst = max(worst, abs(float(found) - expected) / max(1.0, abs(expected)))
        compared += len(cases)
        if cases:
            print(f"{function.__name__}: {len(cases)} cases against {library}, largest difference {worst:.1e}")
    if differs:
        sys.exit(f"{differs} of {compared} differ; again: python check.py PROGRAM ROOT {SEED}")
    print(f"{compared} cases agree")


main()
