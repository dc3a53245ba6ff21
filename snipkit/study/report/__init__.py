"""What the pages share: grids of runs, comparisons, pictures, costs and answers in words.

``grids`` plans runs, ``comparisons`` picks them from a table and pairs them by seed, ``methods``
gives every method one label, colour and marker, ``tables`` has means with intervals and masks by
layer, ``charts`` draws what several pages draw, ``rungs`` what RQ6 draws, ``pictures`` shows masks
as images, ``costs`` counts what a mask saves, ``ladder`` has the masks and numbers
behind ``docs/predictions.md``, ``ladder_answers`` the numbers of RQ6's sentences, ``predictions``
the words for what came of predictions, and ``answers`` writes a
page's sentences from templates. seaborn draws the statistics. The names that pages use are here.
"""

import importlib

_NAMES = {
    "planned": "grids",
    "changed": "grids",
    "planned_by_name": "grids",
    "distinct": "grids",
    "smaller_dense": "grids",
    "units_for": "grids",
    "on_record": "comparisons",
    "recorded": "comparisons",
    "biases_kept": "comparisons",
    "rows": "comparisons",
    "collected": "comparisons",
    "curves": "comparisons",
    "beside_the_paper": "comparisons",
    "last_sixth": "comparisons",
    "errors": "comparisons",
    "gap": "comparisons",
    "gaps": "comparisons",
    "in_pairs": "comparisons",
    "against": "comparisons",
    "METHODS": "methods",
    "LABELS": "methods",
    "PALETTE": "methods",
    "MARKERS": "methods",
    "ORDER": "methods",
    "LINES": "methods",
    "POINTS": "methods",
    "labelled": "methods",
    "stacked": "tables",
    "save_and_show": "tables",
    "setting_table": "tables",
    "mean_table": "tables",
    "layer_shares": "tables",
    "layer_scores": "tables",
    "unit_counts": "tables",
    "same_counts": "tables",
    "agreement": "tables",
    "error_curves": "charts",
    "gap_rows": "charts",
    "layer_boxes": "charts",
    "layer_dots": "charts",
    "layer_lines": "charts",
    "size_law": "charts",
    "runs_beside_printed": "table3",
    "against_equality": "charts",
    "write_means": "charts",
    "plain_log": "charts",
    "name_points": "charts",
    "WEIGHTS": "rungs",
    "mask_rows": "rungs",
    "crossed_masks": "rungs",
    "step_bars": "rungs",
    "pixels_and_units": "rungs",
    "example_signals": "rungs",
    "expected_and_kept": "rungs",
    "mask_picture": "pictures",
    "draw_pictures": "pictures",
    "draw_sheets": "pictures",
    "means": "statistics",
    "seeds_and_means": "figures",
    "above_baseline": "figures",
    "draw_losses": "figures",
    "mask_costs": "costs",
    "compact_costs": "costs",
    "kernel_times": "costs",
    "Estimate": "answers",
    "fill": "answers",
    "render": "answers",
}
__all__ = sorted(_NAMES)


def __getattr__(name):
    # On first use, so that commands which need no network stay free of torch and answer at once.
    if name in _NAMES:
        return getattr(importlib.import_module(f"snipkit.study.report.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'snipkit.study.report' has no attribute {name!r}")
