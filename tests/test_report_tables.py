"""Tables by setting and by layer, and the pictures that are drawn from them."""

import dataclasses
import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import seaborn
import torch

from snipkit import masking
from snipkit.study import paper, paths, report
from snipkit.study.report import statistics, table1, table2, table3

NAN = math.nan


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def masks():
    """Of two layers, 3 of 8 and 1 of 4 weights; and a bias."""
    first = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0], dtype=torch.bool).view(4, 2)
    last = torch.tensor([1, 0, 0, 0], dtype=torch.bool).view(1, 4)
    return {"fc1.weight": first, "fc1.bias": torch.zeros(4, dtype=torch.bool), "fc2.weight": last}


def test_results_by_setting_become_one_labelled_table():
    parts = {("lenet-5-caffe", 0.98): {"paths": 3}, ("lenet-300-100", 0.9): {"paths": 4}}
    table = report.stacked(parts, "model", "sparsity")
    assert list(table["removed, %"]) == [98, 90] and list(table.paths) == [3, 4]
    assert list(table.network) == ["LeNet-5-Caffe", "LeNet-300-100"]
    frames = {"snip": pd.DataFrame({"x": [1, 2]}), "random": pd.DataFrame({"x": [3]})}
    stacked = report.stacked(frames, "method")
    assert list(stacked["mask"]) == ["SNIP", "SNIP", "random"] and list(stacked.x) == [1, 2, 3]
    assert report.stacked({}, "model").empty


def test_means_stand_in_the_order_of_the_table_or_of_its_categories():
    rows = [("b", "z", 1.0), ("b", "z", 3.0), ("b", "y", 5.0), ("a", "z", NAN), ("a", "z", 2.0)]
    table = pd.DataFrame(rows, columns=["row", "column", "test_error"])
    alone = report.mean_table(table, "row", "column", fewest=4)
    assert not alone.map(lambda text: "±" in text).any(axis=None)
    means = report.mean_table(table, "row", "column", digits=2, count=True)
    half = statistics.interval([1, 3])[2] - 2
    assert list(means.index) == ["b", "a"] and list(means) == ["z", "y"]
    assert means.loc["b", "z"] == f"2.00 ± {half:.2f} (2)" and means.loc["b", "y"] == "5.00 (1)"
    assert means.loc["a", "z"] == "diverged (2)" and means.loc["a", "y"] == ""
    ordered = table.assign(row=pd.Categorical(table.row, ["a", "b"]))
    assert list(report.mean_table(ordered, "row", "column").index) == ["a", "b"]
    assert report.mean_table(table[:0], "row", "column").empty


def test_a_table_is_saved_with_its_index_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("snipkit.study.paths.figures", lambda profile: tmp_path)
    monkeypatch.setattr("snipkit.study.paths.figures_to_write", lambda profile: tmp_path)
    table = pd.DataFrame({"x": [1]}, index=pd.Index(["a"], name="row"))
    assert report.save_and_show(table, "t", "toy") is table
    assert (tmp_path / "t.csv").read_text() == "row,x\na,1\n"
    table.columns = pd.MultiIndex.from_tuples([("error", "ours")])
    report.save_and_show(table, "t", "toy")
    assert (tmp_path / "t.csv").read_text() == 'row,"error, ours"\na,1\n'


def test_differences_stand_by_network_and_share_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path)
    rows = []
    for sparsity in (0.9, 0.98):
        for method, shift in {"random": 3, "snip, shuffle": 1, "erk": 9}.items():
            for seed in (-1.0, 0.0, 1.0):
                rows.append(["mlp-1d", sparsity, method, shift + seed])
    gaps = pd.DataFrame(rows, columns=["model", "sparsity", "method", "gap"])
    columns = {"snip, shuffle": "layers", "random": "any"}
    table = report.setting_table(gaps, columns, "steps", "lesson")
    assert list(table) == ["n", "layers", "any"]
    assert list(table.loc[("MLP, MNIST-1D", 98)]) == ["3", "1.0 ± 2.5", "3.0 ± 2.5"]
    assert pd.read_csv(tmp_path / "steps.csv")["removed, %"].tolist() == [90, 98]


def test_which_counts_two_masks_share(masks):
    """A connection that moves within its row keeps what its unit receives, and so on."""
    moved = {name: mask.clone() for name, mask in masks.items()}
    assert all(report.same_counts(moved, masks).values())
    moved["fc1.weight"][1] = torch.tensor([False, True])  # was the first of its row
    same = {"layer counts": True, "sent counts": False, "received counts": True}
    assert report.same_counts(moved, masks) == same
    moved["fc1.weight"][1, 1] = False
    assert not any(report.same_counts(moved, masks).values())
    moved = masks | {"fc1.bias": torch.ones(4, dtype=torch.bool)}
    assert all(report.same_counts(moved, masks).values())  # biases do not count


def test_shares_of_layers_leave_biases_out_and_count_from_the_input(masks):
    shares = report.layer_shares(masks)
    assert list(shares.layer) == ["fc1", "fc2"] and list(shares.place) == [1, 2]
    assert list(shares.kept) == [3, 1] and list(shares.percent) == [37.5, 25]
    assert list(shares.layer_and_size) == ["fc1, 8 weights", "fc2, 4 weights"]


def test_scores_have_a_row_a_weight(masks):
    scores = {name: mask.float() for name, mask in masks.items()}
    table = report.layer_scores(scores)
    assert list(table.weights) == 8 * [8] + 4 * [4] and table.score.sum() == 4
    assert list(table[table.layer == "fc2"].score) == [1, 0, 0, 0]


def test_pairs_are_complete_where_all_methods_have_the_same_seeds():
    rows = [("snip", 0.9, 0), ("snip", 0.9, 1), ("random", 0.9, 1), ("random", 0.9, 0)]
    rows += [("snip", 0.98, 0), ("random", 0.98, 1)]
    table = pd.DataFrame(rows, columns=["method", "sparsity", "seed"]).assign(model="gru-s")
    assert report.in_pairs(table) == (1, 2)
    assert report.in_pairs(table, ["model"], of="sparsity") == (1, 1)


def errors_of(*methods):
    """A table of runs: three seeds of each method at two sparsities, and of the dense network."""
    settings = [("dense", 0.0)] + [
        (method, sparsity) for method in methods for sparsity in (0.9, 0.98)
    ]
    rows = []
    for method, sparsity in settings:
        for seed in range(3):
            rows.append((method, sparsity, seed, 2 + 10 * sparsity + seed))
    columns = ["method", "sparsity", "seed", "test_error"]
    return pd.DataFrame(rows, columns=columns).assign(model="lenet-300-100", steps=100)


def test_error_curves_are_those_of_the_means_with_the_dense_network_dotted():
    grid = report.error_curves(errors_of("snip", "random"))
    ax = grid.axes.flat[0]
    assert ax.get_yscale() == "log" and ax.get_title().startswith("LeNet-300-100 (n = 3")
    curve = ax.get_lines()[0]
    assert list(curve.get_ydata()) == pytest.approx([12, 12.8])
    dotted = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert dotted == [3, 90]
    grid.figure.draw_without_rendering()
    legend = grid.figure.legends[0].get_window_extent()  # in the picture, and above the titles
    assert legend.y1 <= grid.figure.bbox.y1 and legend.y0 > ax.title.get_window_extent().y1


def test_rows_of_gaps_show_the_mean_over_seeds():
    gaps = report.labelled(report.gaps(errors_of("snip", "random"), {"random": ("random", "snip")}))
    gaps["gap"] += gaps.seed
    grid = report.gap_rows(gaps, linear=1, ticks=[0, 1, 10])
    ax = grid.axes.flat[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["90 % removed", "98 % removed"] and ax.get_xscale() == "symlog"
    assert 1.0 in [x for line in ax.get_lines() for x in line.get_xdata()]


def test_intervals_of_gaps_are_those_of_the_points_in_every_panel():
    """The panels share their axis, and seaborn averages what a logarithmic axis shows."""
    seeds = [-0.9, 0.6, 8.0]
    networks = pd.DataFrame({"network": ["A", "B"]})
    gaps = networks.merge(pd.DataFrame({"gap": seeds}), how="cross")
    grid = report.gap_rows(gaps.assign(**{"removed, %": 99.5, "mask": "random"}), linear=1)
    mean, low, high = statistics.interval(seeds)
    for ax in grid.axes.flat:
        bars = [line.get_xdata() for line in ax.get_lines() if line.get_linestyle() == "-"]
        assert list(bars[0]) == pytest.approx([low, high])
        crosses = [line.get_xdata() for line in ax.get_lines() if line.get_marker() == "|"]
        assert list(crosses[0]) == pytest.approx([mean])


def test_pictures_by_layer_draw_every_layer(masks):
    shares = {("lenet-300-100", "snip", 0.9): report.layer_shares(masks)}
    shares = report.stacked(shares, "model", "method", "sparsity")
    dots = report.layer_dots(shares, percent=10).axes.flat[0]
    assert [label.get_text() for label in dots.get_yticklabels()] == list(shares.layer_and_size)
    lines = report.layer_lines(shares, {"LeNet-300-100": "a remark"}).axes.flat[0]
    assert list(lines.get_lines()[0].get_ydata()) == [37.5, 25]
    assert lines.get_title() == "LeNet-300-100 (a remark)"
    assert [label.get_text() for label in lines.get_xticklabels()] == list(shares.layer)
    scores = {"lenet-300-100": report.layer_scores({k: m.float() for k, m in masks.items()})}
    boxes = report.layer_boxes(report.stacked(scores, "model"), 0.5)
    assert "50 % are lower" in boxes.axes.flat[0].get_title()


def test_the_law_is_a_line_of_slope_minus_one_half():
    layers = {"layer": ["fc1", "fc2"], "weights": [400, 100], "rms": [1.0, 2.0]}
    ax = report.size_law(pd.DataFrame(layers).assign(network="A")).axes.flat[0]
    dotted = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert list(dotted[0].get_ydata()) == pytest.approx([2, 1])  # from the smaller layer on
    assert {text.get_text() for text in ax.texts} == {"fc1", "fc2"}


def test_what_is_not_positive_is_not_drawn_against_equality():
    rows = pd.DataFrame({"predicted": [1, 0], "true": [2, 1], "of": ["a", "a"]})
    options = {"hue": "of", "palette": {"a": "black"}, "unit": "nats"}
    grid = report.against_equality(rows.assign(network="A"), "predicted", "true", **options)
    assert len(grid.axes.flat[0].collections[0].get_offsets()) == 1


@pytest.fixture
def pairs_of_runs():
    """LeNet-300-100 by one protocol, dense and with 98 % removed: two seeds; one is not dense."""
    rows = [(0.0, 0, 1.5), (0.98, 0, 3.0), (0.0, 1, 1.25), (0.98, 1, 3.5), (0.98, 2, 4.0)]
    trained = pd.DataFrame(rows, columns=["sparsity", "seed", "test_error"])
    trained["method"] = ["dense" if sparsity == 0 else "snip" for sparsity in trained.sparsity]
    protocol = {"optimiser": "momentum", "weight decay": 1e-4, "factor": 0.1}
    return trained.assign(model="lenet-300-100", **protocol)


def test_errors_of_table_1_in_pairs(pairs_of_runs):
    points = table1.dense_and_pruned(pairs_of_runs, "lenet-300-100", 0.98).set_index("source")
    printed, authors = points.loc[table1.PRINTED], points.loc[table1.AUTHORS]
    columns = ["dense", "pruned", "weight decay", "group"]
    assert list(printed[columns]) == [1.7, 2.4, 5e-4, "table 1"]
    by_momentum = paper.table("others").query("protocol == 'momentum, 100,000 steps'")
    errors = by_momentum.set_index("claim").error
    expected = [errors[f"table1-lenet-300-100-{percent}"] for percent in (0, 98)]
    assert expected in authors[["dense", "pruned"]].to_numpy().tolist() and len(authors) == 3
    assert list(authors.group) == ["momentum", "plain SGD", "authors' defaults"]
    ours = points.loc[table1.OURS].dropna()[columns]
    rows = [[1.5, 3.0, 1e-4, "momentum"], [1.25, 3.5, 1e-4, "momentum"]]
    assert ours.to_numpy().tolist() == rows
    none = table1.dense_and_pruned(pairs_of_runs[:0], "lenet-300-100", 0.98)
    assert table1.OURS not in set(none.source)


def test_the_picture_of_table_1_has_a_mark_a_pair_and_lines_of_equal_rise(pairs_of_runs):
    points = table1.dense_and_pruned(pairs_of_runs, "lenet-300-100", 0.98)
    (ax,) = table1.draw(points.dropna(), "98 % removed", rises=[0.7]).axes
    marks = ax.collections[0].get_offsets().tolist()
    assert sorted(marks) == sorted(points.dropna()[["dense", "pruned"]].to_numpy().tolist())
    (line,) = [line for line in ax.lines if len(line.get_xdata())]
    assert (line.get_xy1(), line.get_slope()) == ((0, 0.7), 1)
    assert ax.get_xlim()[0] > 1, "the line widens the axis"
    names = {text.get_text().strip(): text for text in ax.texts}
    assert list(names) == ["rise 0.7", "authors' defaults", "momentum", "plain SGD", "table 1"]
    of_momentum = points.dropna().query("group == 'momentum'")
    assert names["momentum"].xy == (of_momentum.dense.mean(), of_momentum.pruned.max())
    assert ax.get_ylabel() == "98 % removed: test error, %"


def test_all_errors_of_table_1_stand_side_by_side(pairs_of_runs):
    errors = table1.side_by_side(pairs_of_runs, "one cycle")
    assert list(errors.index.get_level_values("removed, %")) == [0, 95, 98, 0, 98, 99]
    at_98 = errors.loc["LeNet-300-100", 98.0]
    assert at_98["table 1", "printed"] == "2.4"
    assert at_98["ours", "one cycle"] == statistics.cell(pd.Series([3.0, 3.5, 4.0]), 2)
    authors = table1.by_authors("lenet-300-100", 0.98)
    assert at_98["authors' code", "momentum, 100,000 steps"] == f"{authors.iloc[0]:.2f}"
    rises = table1.rises_by_authors("lenet-300-100", 0.98)
    assert rises["momentum, 100,000 steps"] == pytest.approx(3.08 - 1.41) and len(rises) == 3
    assert errors.loc["LeNet-5-Caffe", 0.0]["ours", "one cycle"] == ""  # none on record


@pytest.fixture
def beside_printed():
    """Two runs of AlexNet-s, pruned and dense, beside the numbers of table 2."""
    rows = [("snip", 0, 20.0), ("snip", 1, 22.0), ("dense", 0, 17.0), ("dense", 1, 18.0)]
    trained = pd.DataFrame(rows, columns=["method", "seed", "test_error"])
    trained = trained.assign(model="alexnet-s", steps=10_500)
    return table2.by_source({"usual": trained, "shorter": trained[:0]})


def test_numbers_of_table_2_stand_beside_ours(beside_printed):
    both = beside_printed
    means = both.groupby(["source", "quantity"]).value.mean()
    printed = paper.table("table2").set_index("model").loc["alexnet-s"]
    assert set(both.model) == {"alexnet-s"} and set(both.images) == {"CIFAR-10"}
    assert means["ours, 30 epochs", table2.ERROR] == 21
    assert means["ours, 30 epochs", table2.COST] == 3.5
    assert means["printed", table2.COST] == printed.error_pruned - printed.error_dense
    (row,) = table2.side_by_side(both)[table2.COST].to_dict("records")
    assert row == {"printed": "0.87", "others": "2.24", "ours, 30 epochs": "3.50 (2)"}
    assert table2.length("gru-s", 12_000) == "12,000 steps"


def test_the_picture_of_table_2_says_how_long_we_trained(beside_printed):
    recurrent = beside_printed.assign(images="MNIST", network="GRU-s")
    recurrent = recurrent[recurrent.source != "others"].replace("ours, 30 epochs", "ours, 9 steps")
    figure = table2.draw(pd.concat([beside_printed, recurrent]))
    assert [ax.get_title() for ax in figure.axes] == [
        "CIFAR-10: error", "CIFAR-10: gap to dense", "MNIST: error", "MNIST: gap to dense"
    ]  # fmt: skip
    assert figure.axes[0].get_xlabel() == f"{table2.ERROR} (left: better)"
    legends = [figure.axes[place].get_legend() for place in (1, 3)]
    names = [[text.get_text() for text in legend.texts] for legend in legends]
    assert names == [["printed", "others", "ours, 30 epochs"], ["printed", "ours, 9 steps"]]
    colors = [handle.get_color() for handle in legends[1].legend_handles]
    assert colors == [table2.LOOKS["printed"][0], table2.LOOKS["usual"][0]]


def test_the_picture_of_table_2_says_where_a_bar_or_a_mark_of_ours_is_missing(beside_printed):
    without = beside_printed[beside_printed.source == "printed"].assign(network="VGG-like")
    figure = table2.draw(pd.concat([beside_printed, without]))
    for ax in figure.axes:
        texts = {text.get_text(): text.xy[1] for text in ax.texts}
        assert texts == {"n = 2": pytest.approx(0.3), "none of ours": 1}  # ours is drawn lowest


def test_a_check_trains_twice_as_long():
    settings = {"gru-s": {"recipe": "overnight-recurrent", "seeds": 3}}
    usual = table2.planned(settings, "snip")
    longer = table2.planned(table2.twice_as_long(settings, ["gru-s"]), "snip")
    assert [run.seed for run in longer] == [0, 1, 2]
    assert longer[0].recipe == dataclasses.replace(usual[0].recipe, steps=24_000)
    assert table2.twice_as_long(settings, []) == {}


def test_the_grid_of_table_2_has_the_printed_sparsities():
    settings = {"gru-s": {"recipe": {"steps": 10}, "seeds": 2}}
    runs = table2.planned(settings, ["dense", "snip"])
    assert [(run.sparsity, run.data, run.scoring_init) for run in runs[-2:]] == [
        (0.95, "mnist", "glorot")
    ] * 2
    assert len(runs) == 4 and table2.data_and_init("vgg-d")["data"] == "cifar-10"


def test_the_grid_of_table_3_and_its_differences():
    runs = table3.planned({"gru-s": {"recipe": {"steps": 10}, "seeds": 2}})
    assert len(runs) == 8 and {run.training_init for run in runs} == {"glorot"}
    assert {run.scoring_init for run in runs} == set(table3.INITS)
    assert set(table3.printed().weights) == set(table3.INITS.values())
    rows = [(run.model, run.sparsity, run.scoring_init, run.seed) for run in runs]
    table = pd.DataFrame(rows, columns=["model", "sparsity", "scoring_init", "seed"])
    table["test_error"] = table.seed + 3 * (table.scoring_init == "normal")
    gaps = table3.against_glorot(table).groupby("weights").gap.mean()
    assert dict(gaps) == {"normal": 3, "trunc. normal": 0, "He": 0}


def test_runs_stand_beside_printed_means():
    ours = pd.DataFrame({"network": "A", "weights": list("xyx"), "test error, %": [1.0, 2.0, 3.0]})
    printed = ours[:2].assign(**{"test error, %": 5.0})
    grid = report.runs_beside_printed(ours, printed, "weights", digits=1)
    ax = grid.axes.flat[0]
    half = statistics.interval([1, 3])[2] - 2
    numbers = [(text.get_text(), text.get_color()) for text in ax.texts]
    blue = report.PALETTE["snip"]  # ours above, and the printed one in black below it
    assert numbers[:2] == [(f"2.0 ± {half:.1f}", blue), ("5.0", "black")]
    assert numbers[2:] == [("2.0", blue), ("5.0", "black")]
    texts = [text.get_text() for text in grid.figure.legends[-1].texts]
    assert texts[0] == "ours, one run" and texts[-1].startswith("printed mean")
    assert ax.get_xscale() == "linear" and ax.get_ylim() == (1.5, -0.5)
    assert [5.0, 5.0] in [list(line.get_xdata()) for line in ax.get_lines()]
    spread = ours.assign(**{"test error, %": [1.0, 20.0, 1.0]})
    grid = report.runs_beside_printed(spread, spread, "weights")
    assert grid.axes.flat[0].get_xscale() == "log"


def test_what_masks_have_in_common(masks):
    other = {name: mask.clone() for name, mask in masks.items()}
    other["fc1.weight"] = ~masks["fc1.weight"]  # 5 of 8, none of them the same
    row = report.agreement([masks, other])
    assert row["in common, %"] == pytest.approx(100 * 1 / 4)
    assert row["by chance, %"] == pytest.approx(100 * (3 * 5 / 8 + 1 / 4) / 4)
    assert row["sd of the count in fc1, %"] == pytest.approx(100 * 2**0.5 / 4)
    assert row["sd of the count in fc2, %"] == 0


def test_the_mean_of_each_row_stands_beside_it():
    gaps = report.labelled(report.gaps(errors_of("snip", "random"), {"random": ("random", "snip")}))
    gaps["gap"] += gaps.seed
    rows = {"x": "gap", "y": "mask"}
    grid = seaborn.catplot(gaps, kind="bar", col="setting", errorbar=None, **rows)
    report.write_means(grid, gaps, col="setting", **rows)
    for setting, ax in grid.axes_dict.items():
        (text,) = ax.texts
        assert text.get_text() == statistics.cell(gaps[gaps.setting == setting].gap)
        assert text.xy == (1.02, 0)


def test_an_axis_has_the_ticks_that_are_asked_for():
    _, ax = plt.subplots()
    report.plain_log([ax], "x", [1, 2.5])
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2.5"]


def test_masks_of_keep_top_fit_the_table(masks):
    scores = {name: torch.rand(mask.shape) for name, mask in masks.items()}
    kept = masking.keep_top(scores, 0.5)
    expected = sum(int(kept[name].sum()) for name in ("fc1.weight", "fc2.weight"))
    assert report.layer_shares(kept).kept.sum() == expected


def test_incoming_connections_of_each_hidden_unit():
    masks = {
        "fc1.weight": torch.tensor([[True, True, False], [False, False, False]]),
        "fc1.bias": torch.tensor([True, True]),
        "fc2.weight": torch.tensor([[True, False]]),
    }
    counts = report.unit_counts(masks)
    assert list(counts.connections) == [2, 0] and set(counts.layer) == {"fc1"}
