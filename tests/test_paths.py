"""Which part of a mask is effective, and networks without the rest.

The same functions, trained the same way.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snipkit
from snipkit import masking, models, saliency
from snipkit.beyond import paths
from snipkit.study.sets.vision import load_torchvision

#: every network of the study, small where it can be: name → (options, shape of an image)
NETWORKS = {
    "lenet-300-100": ({}, (1, 28, 28)),
    "lenet-5-caffe": ({}, (1, 28, 28)),
    "mlp-1d": ({"width": 0.2}, (1, 1, 40)),
    "cnn-1d": ({"width": 0.5}, (1, 1, 40)),
    "alexnet-s": ({"width": 0.1}, (3, 32, 32)),
    "alexnet-b": ({"width": 0.1}, (3, 32, 32)),
    "vgg-c": ({"width": 0.125}, (3, 32, 32)),
    "vgg-d": ({"width": 0.125}, (3, 32, 32)),
    "vgg-like": ({"width": 0.125}, (3, 32, 32)),
    "resnet-20": ({"width": 0.5}, (3, 32, 32)),
    "wrn-16-8": ({"width": 0.125}, (3, 32, 32)),
    "wrn-16-10": ({"width": 0.1}, (3, 32, 32)),
    "wrn-22-8": ({"width": 0.125}, (3, 32, 32)),
    "lstm-s": ({"width": 0.1}, (1, 28, 28)),
    "gru-s": ({"width": 0.1}, (1, 28, 28)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(name):
    options, shape = NETWORKS[name]
    return models.build(name, **options).double(), shape


def batch(shape, size=8, seed=0):
    images = torch.randn(size, *shape, generator=seeded(seed), dtype=torch.float64)
    return images, torch.arange(size) % 10


def random_masks(model, density, seed=0):
    masks = {}
    generator = seeded(seed)
    for name, parameter in snipkit.prunable(model).items():
        masks[name] = torch.rand(parameter.shape, generator=generator) < density
    return masks


def without_biases(masks):
    return {
        name: torch.zeros_like(mask) if snipkit.is_bias(name) else mask
        for name, mask in masks.items()
    }


def dense(model):
    return {
        name: torch.ones_like(p, dtype=torch.bool) for name, p in snipkit.prunable(model).items()
    }


def count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


# --- effective ------------------------------------------------------------------------------------
# ------------------


def test_effective_masks_by_boolean_matrices():
    """Three linear layers.

    A weight counts when its unit is fed from the input and leads on to the output.
    """
    model = models.build("lenet-300-100")
    masks = masking.keep_top(saliency.random(model, generator=seeded()), 0.99)
    for name in ("fc1.bias", "fc2.bias", "fc3.bias"):
        masks[name][:] = True  # also of units that nothing reaches, or that lead nowhere
    first, second, third = (masks[f"fc{i}.weight"] for i in (1, 2, 3))
    fed1, leads2 = first.any(1), third.any(0)
    fed2, leads1 = (second & fed1).any(1), (second & leads2[:, None]).any(0)
    on_path = snipkit.effective(model, masks, torch.zeros(1, 1, 28, 28))
    assert torch.equal(on_path["fc1.weight"], first & leads1[:, None])
    assert torch.equal(on_path["fc2.weight"], second & fed1 & leads2[:, None])
    assert torch.equal(on_path["fc3.weight"], third & fed2)
    assert torch.equal(on_path["fc1.bias"], masks["fc1.bias"] & leads1 & fed1)
    assert (
        torch.equal(on_path["fc3.bias"], (third & fed2).any(1))
        and 0 < on_path["fc3.bias"].sum() < 10
    )
    assert 0 < count(on_path) < count(masks)


class Ending(nn.Module):
    """Two convolutions, a pooling, a linear layer, and something after it."""

    def __init__(self, pool=lambda x: x.mean((2, 3)), end=lambda x: x, size=1):
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6 * size, 5)
        self.pool, self.end = pool, end

    def forward(self, x):
        x = self.second(F.relu(self.first(x)))
        return self.end(self.last(self.pool(F.relu(x)).flatten(1)))


POOLS = {
    "mean": lambda x: x.mean((2, 3)),
    "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.flatten(2).max(2).values,
    "logsumexp": lambda x: x.logsumexp((2, 3)),
    "std": lambda x: x.std((2, 3)),
    "MaxPool2d": nn.MaxPool2d(8),
    "with indices": lambda x: nn.MaxPool2d(8, return_indices=True)(x)[0],
    "max_pool2d": lambda x: F.max_pool2d(x, x.shape[2:]),
    "positional": lambda x: F.max_pool2d(x, 8, 8, 0, 1),
    "AvgPool2d": nn.AvgPool2d(8),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(1),
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(1),
    "LPPool2d": nn.LPPool2d(2, 8),
    "corner": lambda x: x[:, :, ::4, ::4].sum((2, 3)),
}
ENDS = {
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "softmax": lambda x: x.softmax(1),
    "sigmoid": torch.sigmoid,
    "minus": lambda x: -x,
    "square": lambda x: (x - 1) ** 2,
    "saturated": lambda x: F.hardtanh(100 * x + 7),
    "normalised": F.normalize,
    "two outputs": lambda x: {"logits": x, "probabilities": x.softmax(1)},
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_pooling_hides_no_path(pool):
    torch.manual_seed(0)
    model = Ending(POOLS[pool])
    inputs = torch.zeros(1, 2, 8, 8)
    everything = dense(model)
    assert count(paths.effective(model, everything, inputs)) == count(everything)
    masks = without_biases(random_masks(model, 0.15))
    reference = paths.effective(Ending(), masks, inputs)
    on_path = paths.effective(model, masks, inputs)
    assert count(on_path) < count(masks)
    for name in masks:
        assert torch.equal(on_path[name], reference[name]), name


@pytest.mark.parametrize("end", ENDS)
def test_what_stands_after_the_last_layer_hides_no_path(end):
    model = Ending(end=ENDS[end])
    masks = random_masks(model, 0.15)
    reference = paths.effective(Ending(), masks, torch.zeros(1, 2, 8, 8))
    on_path = paths.effective(model, masks, torch.zeros(1, 2, 8, 8))
    assert all(torch.equal(on_path[name], reference[name]) for name in masks)


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"stride": 2}, {"dilation": 2}, {"ceil_mode": True}]
)
def test_the_windows_of_a_maximum(options):
    """A 1x1 convolution before, one weight for each place behind.

    Exactly those places lead on that a window sees.
    """
    pool = nn.MaxPool2d(3, **{"stride": 3} | options)
    shape = pool(torch.zeros(1, 1, 8, 8)).shape
    for place in range(shape.numel()):
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), pool, nn.Flatten(), nn.Linear(shape.numel(), 1)
        )
        model = nn.Sequential(nn.Linear(64, 64, bias=False), model)
        masks = {
            "0.weight": torch.eye(64, dtype=torch.bool),
            "1.3.weight": torch.zeros(1, shape.numel()).bool(),
        }
        masks["1.3.weight"][0, place] = True
        seen = torch.zeros(1, 1, 8, 8, requires_grad=True)
        padded = F.pad(seen, (0, 8, 0, 8)) if options.get("ceil_mode") else seen
        windows = F.unfold(
            padded,
            3,
            options.get("dilation", 1),
            options.get("padding", 0),
            options.get("stride", 3),
        )
        across = int(windows.shape[2] ** 0.5)
        row, column = divmod(place, shape[-1])
        (gradient,) = torch.autograd.grad(windows[0, :, row * across + column].sum(), seen)
        on_path = paths.effective(model, masks, torch.zeros(1, 64))
        assert torch.equal(on_path["0.weight"].diagonal(), gradient.flatten() > 0)


class Gate(nn.Module):
    """Squeeze and excitation: channels are multiplied by a function of all of them, never by 0."""

    def __init__(self):
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(2, 6, 3), nn.Linear(6, 3), nn.Linear(3, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.last((x * gate[:, :, None, None]).amax((2, 3)))


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


ODD = {
    "gate": (Gate, (2, 8, 8)),
    "encoder": (Encoder, (7, 8)),
    "encoder, norm first": (lambda: Encoder(norm_first=True), (7, 8)),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.Flatten(), nn.Linear(216, 3)
        ),
        (2, 8, 8),
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(9, 8), nn.LayerNorm(8), nn.Sigmoid(), nn.Linear(8, 3)),
        (9,),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 4, 3), nn.Conv2d(4, 2, 3, groups=2), nn.Flatten()
        ),
        (2, 4, 4),
    ),
}


@pytest.mark.parametrize("name", [*NETWORKS, *ODD])
@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")
def test_removing_what_is_not_effective_changes_no_output(name):
    """By its meaning, in double precision: biases are 0, normalisation layers as they start."""
    torch.manual_seed(0)
    if name in NETWORKS:
        model, shape = build(name)
    else:
        construct, shape = ODD[name]
        model = construct().double()
    model.eval()
    for density in (0.05, 0.2):
        masks = without_biases(random_masks(model, density))
        inputs = torch.randn(2, *shape, dtype=torch.float64, generator=seeded())
        on_path = paths.effective(model, masks, inputs)
        assert not any((part & ~masks[name]).any() for name, part in on_path.items())
        masking.apply_(model, masks)
        with torch.no_grad():
            before = model(inputs)
            masking.apply_(model, on_path)
            assert (model(inputs) - before).abs().max() <= 1e-9 * before.abs().max()


def test_nothing_is_effective_behind_an_empty_layer_and_everything_in_a_deep_dense_network():
    model = models.build("lenet-300-100")
    masks = dense(model)
    assert count(snipkit.effective(model, masks, torch.zeros(1, 1, 28, 28))) == count(masks)
    masks["fc2.weight"][:] = False
    on_path = snipkit.effective(model, masks, torch.zeros(1, 1, 28, 28))
    assert not any(mask.any() for name, mask in on_path.items() if name.endswith("weight"))
    # 64^300 paths: their number is no float.
    deep = nn.Sequential(*(nn.Linear(64, 64) for _ in range(300)))
    assert count(snipkit.effective(deep, dense(deep), torch.zeros(1, 64))) == count(dense(deep))
    half = random_masks(deep, 0.5)  # every unit still has paths; 0 · ∞ would be NaN
    assert count(snipkit.effective(deep, half, torch.zeros(1, 64))) == count(half)


def test_every_weight_of_a_dense_network_is_effective():
    """Behind pooling too, and where a map is so small that a kernel's border only ever sees padding
    it is not.
    """
    for name in ("lenet-5-caffe", "vgg-like", "wrn-16-8"):
        model, shape = build(name)
        masks = dense(model)
        assert count(snipkit.effective(model, masks, torch.zeros(1, *shape))) == count(masks)
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())
    on_path = snipkit.effective(model, dense(model), torch.zeros(1, 1, 1, 1))
    assert on_path["0.weight"].flatten().tolist() == [False] * 4 + [True] + [False] * 4


def test_frozen_and_wrapped_layers_are_part_of_the_paths_and_the_model_stays_as_it_was():
    frozen = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Dropout(0.5), nn.Linear(2, 2))
    frozen[1].eval()
    masks = {"2.weight": torch.eye(2, dtype=torch.bool)}
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    on_path = snipkit.effective(nn.DataParallel(frozen), masks, torch.zeros(1, 3))
    assert on_path["2.weight"].equal(masks["2.weight"])
    assert [module.training for module in frozen] == [True, False, True] and not frozen[
        0
    ].weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


class Assigned(nn.Sequential):
    def forward(self, x):
        x = super().forward(x)
        x[:, 0] = 0
        return x


@pytest.mark.parametrize(
    "model, inputs, message",
    [
        (nn.Sequential(nn.LSTM(3, 4)), torch.zeros(1, 2, 3), "paths through LSTM are not defined"),
        (
            Ending(nn.FractionalMaxPool2d(8, output_size=1)),
            torch.zeros(1, 2, 8, 8),
            "fractional_max_pool2d are not",
        ),
        (
            Ending(end=lambda x: x.topk(2).values),
            torch.zeros(1, 2, 8, 8),
            "operation topk are not defined",
        ),
        (
            Ending(end=lambda x: x.gather(1, x.argsort(1))),
            torch.zeros(1, 2, 8, 8),
            "gather are not defined",
        ),
        (Assigned(nn.Linear(3, 2)), torch.zeros(1, 3), "fill_ on a part of a tensor"),
        (
            nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)),
            torch.zeros(1, 3).long(),
            "floating-point inputs",
        ),
    ],
)
def test_paths_that_are_not_defined_are_refused_by_name(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        snipkit.effective(model, dense(model), inputs)


# --- networks without what is on no path
# ----------------------------------------------------------------------------


def assert_same(model, masks, small, small_masks, shape, steps=4):
    """The same function before and after some steps of training, and the same weights where both
    have them.
    """
    x, y = batch(shape)
    masking.apply_(model, masks)
    masking.apply_(small, small_masks)
    losses = []
    for network, network_masks in ((model, masks), (small, small_masks)):
        assert all(
            p.shape == network_masks[n].shape
            for n, p in network.named_parameters()
            if n in network_masks
        )
        masking.attach(network, network_masks)
        network.train()
        optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
        losses.append([])
        for _ in range(steps):
            optimiser.zero_grad()
            outputs = network(x)
            loss = F.cross_entropy(outputs, y % outputs.shape[1])
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    x, _ = batch(shape, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), model.eval()(x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["snip", "random"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")
def test_the_smaller_network_is_the_same_function_and_trains_the_same_way(name, kind):
    """In double precision.

    Masks from scores, and random ones with biases in units that get nothing.
    """
    model, shape = build(name)
    if kind == "snip":
        masks = masking.keep_top(
            saliency.snip(
                model.float(), [tensor.float() for tensor in batch(shape)][0:1] + [batch(shape)[1]]
            ),
            0.95,
        )
        model.double()
    else:
        masks = random_masks(model, 0.05)
    small, small_masks = paths.compact(model, masks, batch(shape)[0])
    before, after = (sum(p.numel() for p in network.parameters()) for network in (model, small))
    assert type(small) is type(model) and [*small.state_dict()] == [*model.state_dict()]
    assert (
        after
        < (0.9 if kind == "snip" and "lstm" not in name and "gru" not in name else 1.01) * before
    )
    assert count(small_masks) <= count(masks)
    assert_same(model, masks, small, small_masks, shape)


def test_only_linear_layers_get_smaller_where_one_asks_for_it():
    model, shape = build("lenet-5-caffe")
    masks = masking.keep_top(saliency.magnitude(model), 0.99)
    small, small_masks = paths.compact(model, masks, batch(shape)[0], convolutions=False)
    assert (
        small.conv1.weight.shape == model.conv1.weight.shape
        and small.conv2.weight.shape == model.conv2.weight.shape
    )
    assert small.fc1.weight.numel() < 0.8 * model.fc1.weight.numel()
    assert_same(model, masks, small, small_masks, shape)


def torchvision_model(name, **options):
    torch.manual_seed(0)
    return getattr(load_torchvision().models, name)(num_classes=10, **options)


@pytest.mark.parametrize("name, size", [("resnet18", 32), ("vgg11", 32)])
def test_networks_of_torchvision(name, size, monkeypatch):
    """Narrow ones, with all their operations: a stem with pooling, an adaptive pooling, dropout."""
    narrow = {64: 8, 128: 12, 256: 16, 512: 16, 4096: 24}
    for layer in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
        _narrow(monkeypatch, layer, narrow)
    model = torchvision_model(name)
    if name == "vgg11":
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    model, shape = model.double(), (3, size, size)
    masks = without_biases(random_masks(model, 0.02))
    small, small_masks = paths.compact(model, masks, batch(shape)[0])
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(
        p.numel() for p in model.parameters()
    )
    assert_same(model, masks, small, small_masks, shape)


def _narrow(monkeypatch, layer, sizes):
    """Layers are built with other sizes than they are asked for."""
    build_layer = layer.__init__

    def build_narrow(self, *arguments, **options):
        first = list(arguments)
        for place in range(min(2, len(first))):
            if place == 1 and layer is nn.BatchNorm2d:
                break
            flattened = first[place] == 512 * 7 * 7
            first[place] = sizes[512] * 49 if flattened else sizes.get(first[place], first[place])
        build_layer(self, *first, **options)

    monkeypatch.setattr(layer, "__init__", build_narrow)


class Residual(nn.Module):
    """A stream of six channels.

    A block reads it and adds to it; a linear layer reads what is left.
    """

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.enter, self.between, self.leave = (
            nn.Conv2d(6, 5, 1),
            nn.BatchNorm2d(5),
            nn.Conv2d(5, 6, 1),
        )
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = x + self.leave(F.relu(self.between(self.enter(x))))
        return self.last(x.amax((2, 3)))


def test_channels_go_if_nobody_reads_them_and_constants_stay():
    """By hand: channel by channel."""
    model = Residual().double()
    masks = without_biases(dense(model))
    # The block does not read the first three, the last layer not the second.
    for channel in (0, 1, 2):
        masks["enter.weight"][:, channel] = False
    masks["last.weight"][:, 1] = False
    masks["last.weight"][:, 4] = False  # read by the block alone
    masks["stem.weight"][5] = (
        False  # gets nothing, but batch norm makes a constant of it, and the block adds to it
    )
    masks["enter.weight"][1] = False  # gets nothing, and batch norm again
    masks["leave.weight"][:, 2] = False  # nobody reads it
    small, small_masks = paths.compact(model, masks, torch.zeros(1, 2, 4, 4, dtype=torch.float64))
    assert (
        small.stem.weight.shape[:2] == (5, 2)
        and small.norm.num_features == 5
        and len(small.norm.running_var) == 5
    )
    assert small.enter.weight.shape[:2] == (4, 5) and small.leave.weight.shape[:2] == (5, 4)
    assert small.last.weight.shape == (3, 4)  # it alone picks from the stream
    assert_same(model, masks, small, small_masks, (2, 4, 4))
    masks["between.weight"] = torch.ones(5, dtype=torch.bool)
    masks["leave.weight"][:, 1] = False  # now nobody reads the constant
    small, small_masks = paths.compact(model, masks, torch.zeros(1, 2, 4, 4, dtype=torch.float64))
    assert small.between.num_features == 3 and small_masks["between.weight"].shape == (3,)


def test_a_network_without_any_path_keeps_a_channel_in_every_layer():
    model, shape = build("resnet-20")
    masks = dense(model)
    masks["blocks.4.conv1.weight"][:] = False
    masks["last.weight"][:] = False
    small, small_masks = paths.compact(model, masks, batch(shape)[0])
    assert small.stem.weight.shape[0] == 1 and small.last.weight.shape == (10, 1)
    assert_same(model, masks, small, small_masks, shape)


def test_the_smaller_network_has_all_outputs_and_keeps_layout_and_frozen_parameters():
    """An output that no path leads to is what it was: its bias, or 0."""
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    model.to(memory_format=torch.channels_last)
    model[0].bias.requires_grad_(False)
    masks = without_biases(random_masks(model, 0.4)) | {"0.bias": torch.zeros(8, dtype=torch.bool)}
    masks["0.weight"][2:5] = False
    masks["3.weight"][1] = False
    small, small_masks = paths.compact(model, masks, torch.zeros(1, 2, 4, 4))
    masking.apply_(model, masks), masking.apply_(small, small_masks)
    x = torch.randn(4, 2, 4, 4)
    assert small[0].out_channels == len(small[0].bias) == 5 and not small[0].bias.requires_grad
    assert small[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not small(x)[:, 1].any() and small(x)[:, 0].any()
    torch.testing.assert_close(small(x), model(x))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        hidden = torch.relu(self.trunk(x))
        return self.first(hidden) + self.second(hidden)


class Tied(nn.Module):
    """The first layer again, transposed by the user: what it reads and writes belongs together."""

    def __init__(self):
        super().__init__()
        self.shared, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


class Dense(nn.Module):
    """Concatenated, depthwise, gated, and a flattened map."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.depthwise, self.gate = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(32, 4)

    def forward(self, x):
        x = torch.cat([x, F.relu(self.first(x))], 1)
        x = self.depthwise(F.pad(self.second(x), (1, 0, 1, 0)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.last(F.max_pool2d(x, 2).flatten(1)).log_softmax(1)


@pytest.mark.parametrize(
    "construct, shape", [(TwoHeads, (6,)), (Tied, (6,)), (Dense, (2, 6, 6)), (Gate, (2, 8, 8))]
)
def test_networks_that_are_no_chains(construct, shape):
    torch.manual_seed(0)
    for density, biases in ((0.05, False), (0.1, True), (0.3, False), (0.3, True)):
        model = construct().double()
        masks = random_masks(model, density)
        masks = masks if biases else without_biases(masks)
        small, small_masks = paths.compact(
            model, masks, torch.zeros(1, *shape, dtype=torch.float64)
        )
        if construct is not Tied and density < 0.1:
            assert sum(p.numel() for p in small.parameters()) < sum(
                p.numel() for p in model.parameters()
            )
        x = torch.randn(5, *shape, dtype=torch.float64)
        for network, network_masks in ((model, masks), (small, small_masks)):
            masking.apply_(network, network_masks)
        torch.testing.assert_close(small(x), model(x), rtol=1e-9, atol=1e-12)


class Shuffled(nn.Module):
    """A channel shuffle of so many groups: other channels meet if one is left out."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2))


class Written(nn.Sequential):
    def forward(self, x):
        return self[1](torch.relu(self[0](x)).view(-1, 8))


@pytest.mark.parametrize(
    "model, shape, message",
    [
        (
            nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
            (6,),
            "channels these mix: native_layer_norm",
        ),
        (Written(nn.Linear(6, 8), nn.Linear(8, 4)), (6,), "written into its forward pass"),
        (Shuffled(), (2, 3, 3), "written into its forward pass"),
        (nn.Sequential(nn.LSTM(6, 8)), (6,), "mkldnn_rnn_layer|lstm"),
    ],
)
def test_what_cannot_be_made_smaller_is_refused(model, shape, message):
    masks = dense(model)
    weight = next(mask for mask in masks.values() if mask.dim() > 1)
    weight[:3] = False
    masks = without_biases(masks)
    with pytest.raises(ValueError, match=message):
        paths.compact(model, masks, torch.zeros(1, *shape))


@pytest.mark.parametrize(
    "activation", [nn.Hardswish(), nn.LogSigmoid(), nn.PReLU(), nn.PReLU(4), nn.RReLU(), nn.GLU(1)]
)
def test_paths_lead_through_activations_that_torch_does_not_call_pointwise(activation):
    """They lead where those through a ReLU lead; a gated unit has two ways in."""
    torch.manual_seed(0)
    gated = isinstance(activation, nn.GLU)
    layers = [nn.Conv2d(1, 8 if gated else 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten()]
    model, inputs = nn.Sequential(*layers), torch.randn(4, 1, 6, 6)
    model[1] = activation
    masks = {name: torch.rand(p.shape) < 0.4 for name, p in snipkit.prunable(model).items()}
    masks["0.weight"][1::4] = False
    effective = snipkit.effective(model, masks, inputs)
    unit_is_read = masks["2.weight"].flatten(2).any(2).any(0)
    first = masks["0.weight"] & unit_is_read.repeat(2 if gated else 1)[:, None, None, None]
    alive = masks["0.weight"].flatten(1).any(1).unflatten(0, (-1, 4)).any(0)
    assert torch.equal(effective["0.weight"], first) and first.any()
    assert torch.equal(effective["2.weight"], masks["2.weight"] & alive[:, None, None])
    assert not alive[1]
    if not gated:
        snipkit.compact(model, masks, inputs)
