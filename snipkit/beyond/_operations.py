"""What torch's operations read and move, by name."""

import math

#: only move, repeat, leave out or add up entries: they are called as they are
AS_THEY_ARE = {
    *("t", "transpose", "permute", "expand", "squeeze", "unsqueeze", "unfold"),
    *(
        "slice",
        "select",
        "narrow",
        "index",
        "index_select",
        "gather",
        "flip",
        "roll",
        "repeat",
        "diagonal",
        "im2col",
    ),
    *(
        "cat",
        "stack",
        "split",
        "split_with_sizes",
        "unbind",
        "chunk",
        "sum",
        "mean",
        "avg_pool1d",
        "avg_pool2d",
    ),
    *(
        "avg_pool3d",
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "adaptive_avg_pool1d",
        "pixel_shuffle",
    ),
    *(
        "pixel_unshuffle",
        "channel_shuffle",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
    ),
    *(
        "upsample_bilinear2d",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad1d",
        "replication_pad2d",
    ),
    *("cumsum", "col2im"),
}
#: reductions to one of several entries, or to a function of all: (place of the dimensions, place of
#: keepdim)
REDUCTIONS = {
    **dict.fromkeys(
        ["amax", "amin", "logsumexp", "prod", "median", "argmax", "argmin", "any", "all"], (1, 2)
    ),
    **dict.fromkeys(["max", "min", "mode", "nanmedian"], (1, 2)),
    **dict.fromkeys(["linalg_vector_norm", "norm"], (2, 3)),
    **dict.fromkeys(["std", "var", "std_mean", "var_mean"], (1, math.inf)),
}
SOFTMAXES = (
    "softmax",
    "_softmax",
    "_log_softmax",
    "_safe_softmax",
    "log_softmax",
    "sort",
    "cumprod",
    "logcumsumexp",
)
BATCH_NORMS = (
    *(
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
    ),
    *("_batch_norm_no_update", "_batch_norm_with_update", "miopen_batch_norm", "batch_norm"),
)
MAX_POOLS = (
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
)

# --- where channels go ---
RESHAPES = ("view", "_unsafe_view", "reshape")
MOVES = ("t", "transpose", "permute", "squeeze", "unsqueeze", "expand", "cat", "stack")
CUTS = (
    "slice",
    "select",
    "narrow",
    "split",
    "split_with_sizes",
    "unbind",
    "constant_pad_nd",
    "flip",
)
POOLS = (
    *(
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "avg_pool1d",
    ),
    *(
        "avg_pool2d",
        "avg_pool3d",
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "adaptive_avg_pool1d",
    ),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d"),
)
