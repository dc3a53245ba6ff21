"""The examples of docs/any_network.md, run as they stand, where the packages that they are about
are installed.
"""

import re
from pathlib import Path

import pytest
import torch

from snipkit import masking
from snipkit.study.sets.vision import load_torchvision

PAGE = (Path(__file__).parents[1] / "docs" / "any_network.md").read_text()
EXAMPLES = {
    name: (package, code)
    for name, package, code in re.findall(r"```python name=(\w+) needs=(\w+)\n(.*?)```", PAGE, re.S)
}


def test_there_are_four_examples():
    assert list(EXAMPLES) == ["resnet", "vit", "bert", "export"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path, monkeypatch):
    package, code = EXAMPLES[name]
    if package != "transformers":
        load_torchvision()  # beside a CPU build of torch it needs help; timm imports it
    pytest.importorskip(package)
    if ".safetensors" in code:
        pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found = {}
    exec(compile(code, f"docs/any_network.md ({name})", "exec"), found)
    model, masks = found["model"], found["masks"]
    if name == "export":
        assert torch.allclose(found["loaded"](found["images"]), model(found["images"]), atol=1e-5)
    share = {"resnet": 0.1, "vit": 0.2, "bert": 0.1, "export": 0.1}[name]
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(share * total)
    assert not masking.empty_layers(masks)
    held = dict(model.named_modules())
    for name, mask in masks.items():
        owner, _, parameter = name.rpartition(".")
        assert not getattr(held[owner], parameter)[~mask].any()
