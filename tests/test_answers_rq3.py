"""RQ3: each number in its sentences is that of the records."""

import pandas as pd
import pytest
from answers import differences, literal_numbers, shown

from snipkit.study import notebooks, paper, paths
from snipkit.study.report import Estimate, statistics
from snipkit.study.train import records

PAGE = "rq3_architecture_and_initialisation"
# numbers that name a data set, a network, a standard deviation, epochs or steps
SETTINGS = {"10", "300", "100", "1", "30", "3,000", "12,000"}
# 0 is what an interval excludes; 0.1 is the paper's bound; LeNet-300-100 has 410 biases
SETTINGS |= {"0", "0.1", "410"}
TEMPLATES = ["rq3_answer", "rq3_trained", "rq3_longer", "rq3_initialiser", "rq3_choices"]


@pytest.fixture(scope="module")
def table():
    runs = notebooks.grid(PAGE, notebooks.WRITTEN)
    return records.table(runs, records.read(paths.results(notebooks.WRITTEN)))


def errors(table, **fields):
    """Test errors by seed, of the rows with these values."""
    rows = table
    for column, value in fields.items():
        rows = rows[rows[column] == value]
    assert rows.seed.is_unique
    return rows.set_index("seed").test_error


def costs_of_snip(table):
    """Network → mean error with SNIP above the dense one, of those that were trained both ways."""
    means = {}
    for steps in (3_000, 10_500):  # dense networks of RQ3 have no other length
        for model, rows in table[table.steps == steps].groupby("model"):
            dense = errors(rows, method="dense")
            if len(dense):
                pruned = rows[(rows.method == "snip") & (rows.sparsity == sparsity_of(model))]
                means[model] = (errors(pruned) - dense).mean()
    return pd.Series(means)


def sparsity_of(model):
    """The sparsity that table 2 prints for a network."""
    return paper.table("table2").set_index("model").sparsity[model]


def values(table):
    """Template → placeholder → its value, from the records alone."""
    usual = table[~((table.steps == 3_000) | (table.steps > 12_000))]  # section 2
    longer = table[(table.steps == 21_000) | (table.steps == 24_000)]
    short = table[table.steps == 3_000]
    snip, dense = {"method": "snip"}, {"method": "dense"}
    alexnet = errors(usual, model="alexnet-b", **snip)
    alexnet_gap = alexnet - errors(usual, model="alexnet-b", **dense)
    lstm = {"model": "lstm-s", "sparsity": 0.95}

    def against_glorot(model, init):
        fields = {"model": model, "sparsity": 0.9, "training_init": "glorot"}
        other = errors(table, scoring_init=init, **fields)
        return other - errors(table, scoring_init="glorot", **fields)

    lenets = table[(table.model == "lenet-300-100") & (table.sparsity == 0.95)]
    defaults = errors(lenets, same_draw=False, biases=True)
    printed = paper.table("table2").set_index("model").loc["alexnet-b"]
    others = paper.table("others_table2")
    gaps = others.error_pruned - others.error_dense
    gru_longer = errors(longer, model="gru-s") - errors(usual, model="gru-s", **snip)
    differences = {
        "lenet": ("lenet-300-100", "normal"),
        "lenet_truncated": ("lenet-300-100", "truncated-normal"),
        "lenet_he": ("lenet-300-100", "he"),
        "lstm": ("lstm-s", "normal"),
        "lstm_he": ("lstm-s", "he"),
        "gru": ("gru-s", "normal"),
        "gru_he": ("gru-s", "he"),
    }
    digits = {"gru": 0}  # a range, the others have two
    return {
        "rq3_answer": {
            "costs": Estimate(costs_of_snip(table), 1),
            "gru_normal": Estimate(against_glorot("gru-s", "normal"), 0),
        },
        "rq3_trained": {
            "alexnet_b": Estimate(alexnet_gap, 2),
            "alexnet_b_printed": f"{printed.error_pruned - printed.error_dense:.2f}",
            "others": Estimate(gaps, 1),
        },
        "rq3_longer": {
            "alexnet_b_longer": Estimate(errors(longer, model="alexnet-b") - alexnet, 2),
            "gru_s_longer": Estimate(gru_longer, 2),
            "lstm_s_short": Estimate(
                errors(short, **lstm) - errors(short, model="lstm-s", **dense), 2
            ),
            "lstm_s": Estimate(errors(usual, **lstm), 2),
        },
        "rq3_initialiser": {
            name: Estimate(against_glorot(*setting), digits.get(name, 2))
            for name, setting in differences.items()
        },
        "rq3_choices": {
            "scored_draw": Estimate(errors(lenets, same_draw=True) - defaults, 2),
            "biases": Estimate(errors(lenets, biases=False) - defaults, 2),
            "more": 13_310 + 410 - 13_331,  # 5 % of the weights and all biases; 5 % of both
        },
    }


def test_the_numbers_in_the_sentences_are_those_of_the_records(table):
    texts = shown(PAGE)
    assert len(texts) == len(TEMPLATES)
    for text, (name, values_by_name) in zip(texts, values(table).items()):
        assert differences(text, name, values_by_name) == []


def test_the_two_choices_change_nothing_that_six_seeds_can_tell(table):
    """The template says that both intervals contain zero."""
    for name in ("scored_draw", "biases"):
        difference = values(table)["rq3_choices"][name]
        _, low, high = statistics.interval(difference.values)
        assert low < 0 < high


def test_the_paper_prints_less_than_a_point_where_both_were_trained(table):
    """The answer says it of five networks."""
    costs = costs_of_snip(table)
    printed = paper.table("table2").set_index("model").loc[costs.index]
    assert len(costs) == 5 and (printed.error_pruned - printed.error_dense < 1).all()


def test_every_gap_lies_right_of_the_printed_one(table):
    """The picture of section 2 shows it of ours and of others, and of our errors on CIFAR-10."""
    printed = paper.table("table2").set_index("model")
    printed_gap = printed.error_pruned - printed.error_dense
    costs, others = costs_of_snip(table), paper.table("others_table2").set_index("model")
    assert (costs > printed_gap[costs.index]).all()
    assert (others.error_pruned - others.error_dense > printed_gap[others.index]).all()
    trained = table[(table.data == "cifar-10") & (table.method == "snip")]
    means = trained.groupby(["model", "steps"]).test_error.mean()
    assert (means > printed.error_pruned[means.index.get_level_values("model")].to_numpy()).all()
    assert {10_500, 21_000} == set(means.index.get_level_values("steps"))
    for model in ("alexnet-s", "alexnet-b"):  # twice the time brings them nearer
        assert means[model, 21_000] < means[model, 10_500]


def test_no_layer_is_empty_at_the_printed_sparsities():
    """The answer says it of all twelve networks, which were scored on one batch."""
    counts = pd.read_csv(paths.figures("overnight") / "rq3_counts.csv")
    assert len(counts) == 12 and not counts["empty layers"].any()


def test_gru_s_errs_more_in_all_trainings(table):
    """The answer says it of normal weights, against Glorot's."""
    assert (values(table)["rq3_answer"]["gru_normal"].values > 0).all()


def test_what_is_said_of_the_initialiser(table):
    """Both normals' intervals for LeNet-300-100 lie just above 0 and hold 0.1; He's hold 0."""
    intervals = {}
    for name, estimate in values(table)["rq3_initialiser"].items():
        intervals[name] = statistics.interval(estimate.values)[1:]
    for name in ("lenet", "lenet_truncated"):
        assert 0 < intervals[name][0] < 0.1 < intervals[name][1]
    for name in ("lenet_he", "lstm_he", "gru_he"):
        assert intervals[name][0] < 0 < intervals[name][1]


def test_what_the_picture_of_table_3_shows(table):
    """LeNet-300-100's four intervals overlap; the normal rows of the others lie to the right."""

    def rows_of(model):
        fields = {"model": model, "sparsity": 0.9, "training_init": "glorot"}
        inits = ("normal", "truncated-normal", "glorot", "he")
        return [errors(table, scoring_init=init, **fields) for init in inits]

    intervals = [statistics.interval(row)[1:] for row in rows_of("lenet-300-100")]
    assert max(low for low, _ in intervals) < min(high for _, high in intervals)
    for model in ("lstm-s", "gru-s"):
        normal, truncated, glorot, he = rows_of(model)
        assert min(normal.min(), truncated.min()) > 1.9 * max(glorot.max(), he.max())
    printed = paper.table("table3").set_index(["model", "scoring_init"]).error_mean
    for model in ("lstm-s", "gru-s"):
        assert printed[model, "normal"] > 1.9 * printed[model, "glorot"]


def test_only_settings_are_written_by_hand():
    by_hand = [number for name in TEMPLATES for number in literal_numbers(name)]
    assert {number.rstrip(",.") for number in by_hand} <= SETTINGS, by_hand


def test_others_errors_are_the_same_in_both_tables():
    """The gaps' table has the pruned errors that the list of others' numbers has."""
    listed = paper.table("others")
    listed = listed[(listed.source == "aygong/snip-tensorflow")].copy()
    listed["model"] = listed.claim.str.removeprefix("table2-")
    gaps = paper.table("others_table2")
    both = pd.merge(gaps, listed, on="model", suffixes=("", "_listed"))
    assert len(both) == len(gaps) == len(listed)
    assert (both.error_pruned == both.error).all() and (both.n == both.n_listed).all()
