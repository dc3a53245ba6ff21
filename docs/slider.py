"""Compute what the site's slider shows: `python docs/slider.py` writes docs/slider.json (seconds,
needs MNIST).

LeNet-300-100 and the batch are those of notebook 00: seed 0, 100 training images. The file is
committed, so that the site is built without data.
"""

import json
import warnings
from pathlib import Path

import torch

import snipkit
from snipkit import data, masking, models, saliency
from snipkit.study import paths
from snipkit.study.sets import datasets

FILE = Path(__file__).with_suffix(".json")
SPARSITIES = (
    0,
    0.5,
    0.7,
    0.8,
    0.9,
    0.93,
    0.95,
    0.97,
    0.98,
    0.985,
    0.99,
    0.993,
    0.995,
    0.997,
    0.999,
)
LAYERS = {"fc1": "784 → 300", "fc2": "300 → 100", "fc3": "100 → 10"}


def per_pixel(mask: torch.Tensor) -> list[int]:
    """Of the connections of each of the 784 pixels, how many are kept; ``mask`` is (units, 784)."""
    return mask.sum(0).tolist()


def compute() -> dict:
    """The mean training image (784 grey values), and for each sparsity the kept connections by
    pixel and by layer.
    """
    mnist = datasets.load("mnist", split_seed=0)
    model = models.build("lenet-300-100", seed=0)
    batch = data.sample(mnist.train, 100, torch.Generator().manual_seed(0))
    scores = {"SNIP": saliency.snip(model, batch), "random": saliency.random(model, batch)}
    total = {layer: scores["SNIP"][f"{layer}.weight"].numel() for layer in LAYERS}
    steps = []
    for sparsity in SPARSITIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", masking.EmptyLayerWarning)
            masks = {name: masking.keep_top(score, sparsity) for name, score in scores.items()}
        steps.append(
            {
                "sparsity": sparsity,
                "pixels": {name: per_pixel(mask["fc1.weight"]) for name, mask in masks.items()},
                "kept": {
                    n: [int(m[f"{layer}.weight"].sum()) for layer in LAYERS]
                    for n, m in masks.items()
                },
                "biases": {
                    n: sum(int(v.sum()) for k, v in m.items() if snipkit.is_bias(k))
                    for n, m in masks.items()
                },
            }
        )
    ink = mnist.train.pixels.float().mean((0, 1)).round().int().flatten().tolist()
    return {
        "ink": ink,
        "layers": LAYERS,
        "total": list(total.values()),
        "biases": 410,
        "steps": steps,
    }


if __name__ == "__main__":
    text = json.dumps(compute(), separators=(",", ":"), ensure_ascii=False) + "\n"
    paths.write_text(FILE, text)
