"""The outcomes in docs/predictions.md: each judged anew from the records, by the rule beside it."""

import dataclasses
import re
from collections import Counter

import pytest
from tiny import ROOT

import snipkit
from snipkit import masking, saliency, study
from snipkit.beyond import controls
from snipkit.study import paths, report
from snipkit.study.report import statistics
from snipkit.study.train import ladder_runs, prepare

MARGIN = 1.5  # points, on the MLP
ROW = re.compile(r"^\| 2026-11-30 \| (\w\d?)\. .*? \| [^|]* \| (.*) ?\|$", re.MULTILINE)
OUTCOMES = dict(ROW.findall((ROOT / "docs/predictions.md").read_text()))  # letter → text


PAGE = (ROOT / "notebooks/answers/rq6_new_predictions.md").read_text()
ON_THE_PAGE = {}  # letter and number → its outcome; B1 has two rows, "B1, at 98 %" and another
for prediction, outcome in re.findall(r"^\| (\w\d)[ ,].*\| ([^|]+) \|$", PAGE, re.MULTILINE):
    earlier = ON_THE_PAGE.get(prediction)
    ON_THE_PAGE[prediction] = f"{earlier}; {outcome}" if earlier else outcome
LISTED = dict(re.findall(r"\*\*(Holds|Failed|Open):\*\* ([^.]*)", PAGE))
ANY, LIVE, MISALIGNED, UNITS = (f"snip, {control}" for control in ladder_runs.WITHIN_LAYERS)


def on_record(planned):
    """A table of these runs, which must all be on record."""
    recorded = study.table(planned, study.read(paths.results(ladder_runs.PROFILE)))
    assert len(recorded) == len(planned)
    return recorded


@pytest.fixture(scope="module")
def with_biases():
    """The runs that keep all biases."""
    return on_record(ladder_runs.bias_runs())


@pytest.fixture(scope="module")
def table():
    """All runs of the MLP's part."""
    return on_record(ladder_runs.mlp_runs())


def cell(table, method, sparsity, counts="own", scored=False):
    """Test errors by seed."""
    fields = {"sparsity": sparsity, "same_draw": scored, "layer_counts": counts}
    return report.errors(table, method=method, **fields)


def word(low, high, holds, failed):
    """The word for an interval, from what would make the prediction true and what false."""
    if holds(low, high):
        return "holds"
    return "failed" if failed(low, high) else "open"


def beats(first, second):
    _, low, high = statistics.interval(first - second)
    return word(low, high, lambda low, high: high < 0, lambda low, high: low > 0)


def equal(difference, margin=MARGIN):
    _, low, high = statistics.interval(difference, level=0.9)
    inside = word(low, high, lambda low, high: -margin < low and high < margin, lambda *_: False)
    _, low, high = statistics.interval(difference)
    return "failed" if inside != "holds" and (low > 0 or high < 0) else inside


def together(words):
    words = list(words)
    if "failed" in words:
        return "failed"
    return "open" if "open" in words else "holds"


def judged(table):
    """Prediction → the word of each of its parts, on the MLP."""

    def both(sparsity):
        return cell(table, UNITS, sparsity, "erk")

    def erk(sparsity):
        return cell(table, ANY, sparsity, "erk")

    def snip(sparsity, scored=False):
        return cell(table, "snip", sparsity, scored=scored)

    def beats_both(sparsity):
        return together(beats(both(sparsity), parent(sparsity)) for parent in (snip, erk))

    def units_gain(sparsity, counts):
        return cell(table, UNITS, sparsity, counts) - cell(table, ANY, sparsity, counts)

    def share_of_live_units(sparsity):
        gain = cell(table, LIVE, sparsity) - cell(table, ANY, sparsity)
        return gain.mean() / units_gain(sparsity, "own").mean()

    def misaligned(sparsity):
        return cell(table, MISALIGNED, sparsity) - cell(table, UNITS, sparsity)

    def twin(name, sparsity, scored=False):
        return cell(table, name, sparsity, scored=scored) - snip(sparsity, scored)

    def worse_by_about(name, sparsity, points):
        _, low, high = statistics.interval(twin(name, sparsity, scored=True))
        return "holds" if 0 < low < points < high else "failed"

    live_units = [share_of_live_units(0.98) >= 1 / 2]
    live_units += [share_of_live_units(sparsity) < 1 / 3 for sparsity in (0.9, 0.8)]
    _, low, high = statistics.interval(twin("gradient-twin", 0.98))
    return {
        "A1": beats_both(0.98),
        "A2": together(beats_both(sparsity) for sparsity in (0.9, 0.95)),
        "A3": beats(both(0.8), snip(0.8)),
        "A4": together(
            equal(units_gain(sparsity, "erk") - units_gain(sparsity, "own"))
            for sparsity in (0.8, 0.9, 0.95)
        ),
        "A5": together(
            beats(erk(sparsity), cell(table, ANY, sparsity)) for sparsity in (0.8, 0.9, 0.95, 0.98)
        ),
        "B1": "holds" if all(live_units) else "failed",
        "B2": together(
            [equal(misaligned(sparsity)) for sparsity in (0.8, 0.9, 0.95)]
            + ["failed" if statistics.interval(misaligned(0.98))[2] < 0 else "holds"]
        ),
        "E2": together(
            [equal(twin("gradient-twin", sparsity)) for sparsity in (0.8, 0.9, 0.95)]
            + ["holds" if low <= 0 <= high else "failed"]
        ),
        "E3": together(
            [equal(twin("rank-one-twin", sparsity)) for sparsity in (0.8, 0.9)]
            + ["holds" if statistics.interval(twin("rank-one-twin", 0.98))[0] > MARGIN else "open"]
        ),
        "E4": together(
            equal(twin("noisy-rank-one-twin", sparsity)) for sparsity in (0.8, 0.9, 0.95)
        ),
        "E6": together(
            beats(cell(table, "gradient-twin", sparsity), cell(table, ANY, sparsity))
            for sparsity in (0.9, 0.95, 0.98)
        ),
        "E7": together(
            worse_by_about(name, sparsity, points)
            for name in ("gradient-twin", "rank-one-twin")
            for sparsity, points in ((0.98, 2.1), (0.9, 1.2))
        ),
    }


def measured(table, with_biases):
    """Prediction → the differences that its outcome quotes, in their order."""
    of_weights = {0.8: 0.80656, 0.9: 0.90738, 0.95: 0.95778, 0.98: 0.98804}

    def gain(control, sparsity, counts="own"):
        return cell(table, ANY, sparsity, counts) - cell(table, control, sparsity, counts)

    def behind_both(sparsity):
        both = cell(table, UNITS, sparsity, "erk")
        return [cell(table, "snip", sparsity) - both, gain(UNITS, sparsity, "erk")]

    def twin(name, sparsity, scored=False):
        return cell(table, name, sparsity, scored=scored) - cell(
            table, "snip", sparsity, scored=scored
        )

    def kept(first, second, sparsity):
        methods = [cell(with_biases, name, of_weights[sparsity]) for name in (first, second)]
        return methods[0] - methods[1]

    def bias_gain(sparsity):
        return cell(table, "snip", sparsity) - cell(with_biases, "snip", of_weights[sparsity])

    live = [gain(control, s) for s in (0.98, 0.9, 0.8) for control in (LIVE, UNITS)]
    gradient, noisy, rank_one = (
        f"{name}-twin" for name in ("gradient", "noisy-rank-one", "rank-one")
    )
    return {
        "A1": behind_both(0.98),
        "A2": behind_both(0.9) + behind_both(0.95),
        "A3": behind_both(0.8),
        "A4": [gain(UNITS, s, "erk") - gain(UNITS, s) for s in (0.8, 0.9, 0.95, 0.98)],
        "A5": [cell(table, ANY, s) - cell(table, ANY, s, "erk") for s in (0.8, 0.9, 0.95, 0.98)],
        "B1": live,
        "B2": [gain(UNITS, s) - gain(MISALIGNED, s) for s in (0.8, 0.9, 0.95, 0.98)],
        "E2": [twin(gradient, s) for s in (0.98, 0.8, 0.9, 0.95)],
        "E3": [twin(rank_one, s) for s in (0.9, 0.98, 0.8)],
        "E4": [twin(noisy, s) for s in (0.8, 0.9, 0.95)],
        "E6": [cell(table, ANY, s) - cell(table, gradient, s) for s in (0.9, 0.95, 0.98)],
        "E7": [
            twin(rank_one, 0.98, True),
            twin(gradient, 0.98, True),
            twin(gradient, 0.9, True),
            twin(rank_one, 0.9, True),
        ],
        "H1": [kept(ANY, "erk", s) for s in (0.8, 0.9, 0.95, 0.98)],
        "H2": [kept("erk", "snip", s) for s in (0.8, 0.9, 0.95, 0.98)],
        "H3": [bias_gain(s) for s in (0.8, 0.9, 0.95)],
        "H4": [-bias_gain(0.98)],
        "H5": [kept(UNITS, "snip", s) for s in (0.9, 0.8, 0.95)]
        + [kept(ANY, UNITS, s) for s in (0.95, 0.98)],
    }


def test_each_number_of_an_outcome_is_that_of_the_records(table, with_biases):
    for letter, values in measured(table, with_biases).items():
        written = re.findall(r"-?\d+\.\d ± \d+\.\d", OUTCOMES[letter])
        assert written == [str(report.Estimate(value)) for value in values], letter


def test_each_outcome_is_that_of_its_rule(table):
    for letter, outcome in judged(table).items():
        assert OUTCOMES[letter].lower().replace("*", "").startswith(f"mlp: {outcome}"), letter
        if letter in ON_THE_PAGE:
            assert ON_THE_PAGE[letter].startswith(outcome), letter


def judged_with_biases(table, with_biases):
    """H1 to H5, by the sparsity of all parameters, of which the runs keep all 410 biases."""
    of_weights = {0.8: 0.80656, 0.9: 0.90738, 0.95: 0.95778, 0.98: 0.98804}

    def kept(method, sparsity):
        return cell(with_biases, method, of_weights[sparsity])

    def gain(sparsity):
        return cell(table, "snip", sparsity) - kept("snip", sparsity)

    def units(sparsity):
        return kept(UNITS, sparsity) - kept("snip", sparsity)

    helps = [beats(kept("snip", s), cell(table, "snip", s)) for s in (0.8, 0.9, 0.95)]
    return {
        "H1": together(
            [beats(kept("erk", sparsity), kept(ANY, sparsity)) for sparsity in (0.8, 0.9)]
            + [equal(kept(ANY, sparsity) - kept("erk", sparsity)) for sparsity in (0.95, 0.98)]
        ),
        "H2": together(
            [beats(kept("snip", sparsity), kept("erk", sparsity)) for sparsity in (0.9, 0.95, 0.98)]
            + [beats(kept("erk", 0.8), kept("snip", 0.8))]
        ),
        "H3": together([*helps, "holds" if gain(0.9).mean() >= 2 else "failed"]),
        "H4": "failed"
        if beats(kept("snip", 0.98), cell(table, "snip", 0.98)) == "holds"
        else "holds",
        "H5": together(
            [equal(units(sparsity)) for sparsity in (0.8, 0.9, 0.95)]
            + [beats(kept(UNITS, sparsity), kept(ANY, sparsity)) for sparsity in (0.95, 0.98)]
        ),
    }


def test_the_outcomes_with_all_biases_are_those_of_their_rules(table, with_biases):
    for letter, outcome in judged_with_biases(table, with_biases).items():
        assert OUTCOMES[letter].lower().startswith(outcome), letter
        assert ON_THE_PAGE.get(letter, outcome).startswith(outcome), letter


def test_the_list_above_the_rows_of_the_page_has_their_words():
    assert len(ON_THE_PAGE) == 15
    for letter, outcome in ON_THE_PAGE.items():
        (word,) = [word for word, text in LISTED.items() if letter in re.findall(r"\w\d", text)]
        assert outcome.startswith(word.lower()), letter


def failed_at(letter):
    """The shares removed, in per cent, at which a row of the page says that it failed."""
    parts = re.findall(r"failed ([^;]*)", ON_THE_PAGE[letter])
    return {int(percent) for percent in re.findall(r"\b(\d\d)\b", " ".join(parts))}


def test_the_page_names_the_sparsities_at_which_a_prediction_failed(table, with_biases):
    of_weights = {80: 0.80656, 90: 0.90738, 95: 0.95778}

    def apart(first, second, percents, rows=table):
        """Where two masks are not equal, though it was predicted."""
        failed = set()
        for percent in percents:
            sparsity = of_weights[percent] if rows is with_biases else percent / 100
            gap = cell(rows, first, sparsity) - cell(rows, second, sparsity)
            if equal(gap) == "failed":
                failed.add(percent)
        return failed

    assert failed_at("B2") == apart(MISALIGNED, UNITS, (80, 90, 95))
    assert failed_at("E3") == apart("rank-one-twin", "snip", (80, 90))
    assert failed_at("E4") == apart("noisy-rank-one-twin", "snip", (80, 90, 95))
    assert apart("gradient-twin", "snip", (80, 90, 95)) == set() and failed_at("E2") == {98}
    assert failed_at("H5") == apart(UNITS, "snip", (80, 90, 95), with_biases)
    layers = []
    for sparsity in (0.95778, 0.98804):
        layers.append(equal(cell(with_biases, ANY, sparsity) - cell(with_biases, "erk", sparsity)))
    assert layers == ["holds", "open"] and ON_THE_PAGE["H1"].startswith("open at 98 %")
    shares = {}
    for percent in (80, 90, 98):
        errors = [cell(table, control, percent / 100) for control in (ANY, LIVE, UNITS)]
        shares[percent] = (errors[0] - errors[1]).mean() / (errors[0] - errors[2]).mean()
    assert shares[80] >= 1 / 3 > shares[90] and shares[98] < 1 / 2
    assert failed_at("B1") == {80, 98} and "holds at 90 %" in ON_THE_PAGE["B1"]


@pytest.mark.parametrize(
    "bed, seeds, tolerance", [(ladder_runs.MLP, 20, 0.1), (ladder_runs.LENET, 10, 0.06)]
)
def test_the_gradient_alone_tells_how_many_connections_each_layer_keeps(bed, seeds, tolerance):
    """Prediction E1, which needs masks and no training: mean counts over the seeds."""
    kept, expected = Counter(), Counter()
    for run in ladder_runs.each_seed(bed, [{"criterion": "snip"}], [0.9], seeds):
        dataset = prepare.load(run)
        model = prepare.build(run, run.scoring_init, run.seeds()["scoring_init"])
        batches = prepare.scoring_batches(run, dataset)
        gradients = saliency.gradient(model, batches)
        survival = {}
        for name, gradient in gradients.items():
            std = 0.0 if snipkit.is_bias(name) else gradient.shape[1] ** -0.5
            survival[name] = controls.truncated_normal_survival(std)
        scores = saliency.snip(model, batches)
        for sparsity in (0.9, 0.95, 0.98):
            masks = masking.keep_top(scores, sparsity)
            keep = sum(int(mask.sum()) for mask in masks.values())
            odds = controls.twin_probabilities(gradients, survival, keep)
            for name, mask in masks.items():
                kept[sparsity, name] += int(mask.sum())
                expected[sparsity, name] += float(odds[name].sum())
    largest = max(abs(expected[key] / count - 1) for key, count in kept.items() if count)
    assert largest < tolerance
    assert f"{100 * largest:.1f} %" in OUTCOMES["E1"]


@pytest.fixture(scope="module")
def switched():
    """Table 1's protocol with four switches: 8 of 16 combinations, and dense networks."""
    return on_record(ladder_runs.protocol_runs())


def effect(table, column, value, sparsity):
    """Points that a switch adds, by seed: twice the mean of the errors with the switch's sign."""
    cells = table[table.sparsity == sparsity]
    signs = cells[column].eq(value).map({True: 1, False: -1})
    return 2 * (signs * cells.test_error).groupby(cells.seed).mean()


def judged_by_means(switched):
    """F1 to F5: (the word by the means alone, the numbers beside it), as the page says."""
    at_98 = switched[switched.sparsity == 0.98]
    cells = at_98.groupby(["same_draw", "training_init", "scoring_biases", "pixels"]).test_error
    best = cells.get_group(cells.mean().idxmin())
    same_draw = [effect(switched, "same_draw", True, sparsity) for sparsity in (0.98, 0.9)]
    glorot = [effect(switched, "training_init", "glorot", sparsity) for sparsity in (0.98, 0)]
    biases = effect(switched, "scoring_biases", "random", 0.98)
    pixels = [effect(switched, "pixels", "unit", sparsity) for sparsity in (0.98, 0)]
    others = [same_draw[0], glorot[0], biases]
    largest = all(abs(pixels[0].mean()) > abs(other.mean()) for other in others)
    recorded = study.read(paths.results(ladder_runs.PROFILE))
    kept_biases = []
    for run in ladder_runs.protocol_runs():
        if run.scoring_biases == "random" and run.sparsity:
            counts = recorded[run.id].kept
            kept_biases.append(sum(counts[f"fc{layer}.bias"][0] for layer in (1, 2, 3)))
    holds = {
        "F1": best.mean() > 2.8,
        "F2": -0.5 < same_draw[0].mean() < -0.1 and abs(same_draw[1].mean()) < 0.15,
        "F3": -0.4 < glorot[0].mean() < 0 and abs(glorot[1].mean()) < 0.15,
        "F4": min(kept_biases) > 205 and abs(biases.mean()) < 0.4,
        "F5": largest and 0.1 < pixels[1].mean() < 0.4,
    }
    numbers = {"F1": [best], "F2": same_draw, "F3": glorot, "F4": [biases], "F5": pixels}
    return holds, numbers, kept_biases


def test_the_outcomes_of_the_four_switches_are_those_of_the_records(switched):
    holds, numbers, kept_biases = judged_by_means(switched)
    for letter, held in holds.items():
        text = OUTCOMES[letter]
        assert text.lower().startswith("holds" if held else "failed"), letter
        written = re.findall(r"-?\d+\.\d\d ± \d+\.\d\d", text)
        assert written == [str(report.Estimate(value, 2)) for value in numbers[letter]], letter
    assert f"{min(kept_biases)} to {max(kept_biases)} of 410 biases" in OUTCOMES["F4"]


VARIANTS = ("same draw", "scored Glorot", "rate", "images")  # the order of figure7_runs


def final_losses(planned):
    """Nats at the end of 30,000 steps on random labels: (variant, or "usual", sparsity) → loss."""
    keys = [(variant, sparsity) for sparsity in (0.9, 0.1) for variant in VARIANTS]
    runs = dict(zip(keys, planned, strict=True))
    for sparsity in (0.9, 0.1):
        usual = dataclasses.replace(runs["scored Glorot", sparsity], scoring_init="lecun")
        runs["usual", sparsity] = usual
    table = on_record(list(runs.values())).set_index("id").train_loss
    curves = {key: table[run.id] for key, run in runs.items()}
    return {key: report.last_sixth(curve) for key, curve in curves.items()}, curves


def test_the_outcomes_about_figure_7_are_those_of_the_records():
    planned = ladder_runs.figure7_runs()
    recorded = study.read(paths.results(ladder_runs.PROFILE))
    if not all(run.id in recorded for run in planned):  # one look, when all runs are there
        assert not any(OUTCOMES[letter].strip() for letter in ("G1", "G2", "G3", "G4"))
        return
    losses, curves = final_losses(planned)
    lower = {name: losses["usual", 0.9] - losses[name, 0.9] for name in VARIANTS}
    first = [abs(curves["same draw", s][0] - curves["usual", s][0]) for s in (0.9, 0.1)]
    holds = {
        "G1": 0.03 < lower["rate"] < 0.1,
        "G2": 0.03 < lower["images"] < 0.15,
        "G3": abs(lower["scored Glorot"]) < 0.03,
        "G4": 0.03 < lower["same draw"] < 0.12 and max(first) < 0.05,
    }
    of_letter = {"G1": "rate", "G2": "images", "G3": "scored Glorot", "G4": "same draw"}
    for letter, held in holds.items():
        text, variant = OUTCOMES[letter], of_letter[letter]
        assert text.lower().startswith("holds" if held else "failed"), letter
        explains = abs(losses[variant, 0.9] - 1.98) <= 0.03 and 0.05 <= losses[variant, 0.1] <= 0.12
        explains &= variant in ("same draw", "scored Glorot")  # these leave the dense network alone
        assert ("explains the level" in text) == explains, letter
        numbers = [losses[variant, 0.9], lower[variant], losses[variant, 0.1]]
        assert re.findall(r"-?\d\.\d{3}", text) == [f"{number:.3f}" for number in numbers], letter
    at_90, at_10 = (f"{losses['same draw', sparsity]:.2f}" for sparsity in (0.9, 0.1))
    page = (ROOT / "notebooks/rq4_relevance_to_the_task.ipynb").read_text(encoding="utf-8")
    assert f"It ends at {at_90} nats (90 %) and {at_10} (10 %)" in page
