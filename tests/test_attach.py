"""``masking.attach``: pruned weights are 0 after every step and in every call."""

import copy
import gc
import io

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, vector_to_parameters
from torch.nn.utils import prune as torch_prune

import snipkit
from snipkit import masking
from snipkit._attach import bare_copy, suspended

INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 3


class Reader(nn.Module):
    """Reads the weight of ``inner`` without calling it, as ``nn.MultiheadAttention`` does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return torch.tanh(x @ self.inner.weight.T)


def build():
    """A network with fixed weights, and masks that keep about half of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), Reader(), nn.Linear(8, 3))
        masks = {name: torch.rand(p.shape) < 0.5 for name, p in snipkit.prunable(model).items()}
    return model, masks


def revived(model, masks):
    """How many pruned entries are not 0."""
    pairs = masking.matched(model, masks)
    return sum(int(parameter[~mask].count_nonzero()) for parameter, mask in pairs)


def backward(model):
    cross_entropy(model(INPUTS), LABELS).backward()


def gradients_by_hand(model):
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(
        cross_entropy(model(INPUTS), LABELS), parameters, allow_unused=True
    )
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient


def gradients_by_func(model):
    def loss(parameters):
        return cross_entropy(torch.func.functional_call(model, parameters, INPUTS), LABELS)

    gradients = torch.func.grad(loss)({name: p.detach() for name, p in model.named_parameters()})
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name]


def noisy_gradients(model):
    backward(model)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad += 0.1 * torch.randn_like(parameter)


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.1)


def muon(parameters):
    return torch.optim.Muon([parameter for parameter in parameters if parameter.dim() == 2], 0.1)


def train(model, fill=backward, optimiser=sgd, steps=3):
    stepper = optimiser(model.parameters())
    for _ in range(steps):
        stepper.zero_grad()
        fill(model)
        stepper.step()


@pytest.mark.parametrize("fill", [backward, gradients_by_hand, gradients_by_func, noisy_gradients])
@pytest.mark.parametrize("optimiser", [sgd, torch.optim.AdamW, muon])
def test_pruned_weights_are_zero_after_every_step(fill, optimiser):
    model, masks = build()
    masking.attach(model, masks)
    before = copy.deepcopy(model.state_dict())
    train(model, fill, optimiser)
    assert revived(model, masks) == 0
    assert not torch.equal(before["0.weight"], model[0].weight)


def test_gradients_from_elsewhere_go_the_same_way_as_those_of_backward():
    """Masked before the step, they leave no momentum behind for pruned entries."""
    states = []
    for fill in (backward, gradients_by_hand):
        model, masks = build()
        masking.attach(model, masks)
        stepper = sgd(model.parameters())
        fill(model)
        stepper.step()
        states.append(stepper.state[model[0].weight]["momentum_buffer"])
    assert torch.equal(*states) and states[0].any()


def test_older_momentum_moves_nothing_that_is_pruned():
    model, masks = build()
    stepper = sgd(model.parameters())
    for _ in range(2):
        backward(model)
        stepper.step()
    masking.attach(model, masks)
    backward(model)
    stepper.step()
    assert revived(model, masks) == 0


def new_parameters(model):
    model[0].weight = nn.Parameter(torch.ones(8, 6))
    model[1].inner.weight = nn.Parameter(torch.ones(8, 8))


def new_layer(model):
    model[2] = nn.Linear(8, 3)


def ones_by_vector(model):
    vector_to_parameters(torch.ones(sum(p.numel() for p in model.parameters())), model.parameters())


def noise_through_data(model):
    for parameter in model.parameters():
        parameter.data.add_(torch.ones_like(parameter))


def redrawn(model):
    model[0].reset_parameters()
    model[1].inner.reset_parameters()


def loaded(model):
    model.load_state_dict({name: torch.ones_like(p) for name, p in model.state_dict().items()})


def loaded_by_assignment(model):
    ones = {name: torch.ones_like(p) for name, p in model.state_dict().items()}
    model.load_state_dict(ones, assign=True)


def swapped(model):
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.double()
    torch.__future__.set_swap_module_params_on_conversion(before)
    return model.float()


CHANGES = [
    new_parameters,
    new_layer,
    ones_by_vector,
    noise_through_data,
    redrawn,
    loaded,
    loaded_by_assignment,
    swapped,
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_replaces_or_writes_parameters_masks_hold(change):
    model, masks = build()
    masking.attach(model, masks)
    backward(model)
    change(model)
    if change in (loaded, loaded_by_assignment):
        assert revived(model, masks) == 0  # at once
    with torch.no_grad():
        model(INPUTS)
    assert revived(model, masks) == 0
    model.zero_grad()
    backward(model)
    for parameter, mask in masking.matched(model, masks):
        # Gradients of new parameters are masked as well, but torch's swapping leaves no hook at
        # work.
        assert change is swapped or parameter.grad is None or not parameter.grad[~mask].any()
    train(model)
    assert revived(model, masks) == 0


def test_parts_that_are_called_or_saved_by_themselves_are_masked():
    model, masks = build()
    masking.attach(model, masks)
    ones_by_vector(model)
    model[1](torch.ones(2, 8))
    assert not model[1].inner.weight[~masks["1.inner.weight"]].any()
    assert model[0].weight.all()
    assert not model[0].state_dict()["weight"][~masks["0.weight"]].any()
    model.state_dict()
    assert revived(model, masks) == 0


def saved_whole(model):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_whole])
def test_copies_and_loaded_models_keep_their_masks(copied):
    model, masks = build()
    handle = masking.attach(model, masks)
    twin = copied(model)
    handle.remove()
    del model
    gradients_by_hand(twin)
    sgd(twin.parameters()).step()
    assert revived(twin, masks) == 0
    ones_by_vector(twin)
    masking.attached(twin).remove()
    train(twin)
    assert revived(twin, masks) > 0


def test_a_bare_copy_has_no_masks_and_the_model_keeps_its_own():
    model, masks = build()
    masking.attach(model, masks)
    twin = bare_copy(model)
    for network in (twin, model):
        ones_by_vector(network)
        network(INPUTS)
    assert twin[0].weight.all() and revived(model, masks) == 0
    ones_by_vector(model)
    with suspended():
        model(INPUTS)
    assert model[0].weight.all()


def test_a_handle_takes_off_its_own_masks_and_no_others():
    model, masks = build()
    names = list(masks)
    first = masking.attach(model, {name: masks[name] for name in names[:1]})
    masking.attach(model, {name: masks[name] for name in names[1:]})
    first.remove()
    first.remove()  # again does nothing
    ones_by_vector(model)
    model(INPUTS)
    assert model[0].weight.all()
    assert revived(model, {name: masks[name] for name in names[1:]}) == 0


def test_a_layer_may_be_called_twice_before_backward():
    """Contrastive losses do. Masking between two calls must not count as a change of a weight."""
    model, masks = build()
    masking.attach(model, masks)
    (model(INPUTS) * model(INPUTS + 1)).sum().backward()
    assert model[0].weight.grad.any()


def test_function_transforms_see_masked_parameters_and_leave_those_of_the_caller_alone():
    model, masks = build()
    masking.attach(model, masks)
    ones = {name: torch.ones(2, *p.shape) for name, p in model.named_parameters()}

    def outputs(parameters):
        return torch.func.functional_call(model, parameters, INPUTS)

    torch.func.vmap(model)(INPUTS)  # its own parameters, which are not mapped
    batched = torch.func.vmap(outputs)(dict(ones))
    assert all(tensor.all() for tensor in ones.values())
    ones_by_vector(model)
    torch.testing.assert_close(batched[1], model(INPUTS))
    twice_differentiable = {name: p * 2 for name, p in model.named_parameters()}
    loss = outputs(twice_differentiable).sum() + outputs(twice_differentiable).sum()
    gradients = torch.autograd.grad(
        loss, list(model.parameters()), create_graph=True, allow_unused=True
    )
    assert gradients[0][masks["0.weight"]].any() and not gradients[0][~masks["0.weight"]].any()


def test_compiled_models_are_masked_by_steps_and_by_what_compile_returned():
    model, masks = build()
    handle = masking.attach(model, masks)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    train(compiled, noisy_gradients)
    assert revived(model, masks) == 0
    handle.remove()  # no hook has become part of the program
    train(compiled)
    assert revived(model, masks) > 0
    masking.attach(compiled, masks)
    ones_by_vector(model)
    compiled(INPUTS)
    assert revived(model, masks) == 0


def test_an_exported_program_has_no_masking_in_it():
    model, masks = build()
    masking.attach(model, masks)
    assert "masked_fill" not in str(torch.export.export(model.eval(), (INPUTS,)).graph)


def weight_norm(model):
    parametrizations.weight_norm(model[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "change, message",
    [
        (
            weight_norm,
            "0.weight of Sequential does not hold: the parameter is computed from others",
        ),
        (lambda model: nn.utils.weight_norm(model[0]), "the parameter is computed from others now"),
        (
            lambda model: setattr(model, "2", nn.Linear(8, 5)),
            r"it is of shape \(3, 8\), the parameter is now \(5, 8\)",
        ),
    ],
)
def test_what_cannot_be_masked_any_more_is_refused_by_name(change, message):
    model, masks = build()
    handle = masking.attach(model, masks)
    change(model)
    other = nn.Linear(2, 2)
    other(torch.ones(1, 2)).sum().backward()
    sgd(other.parameters()).step()  # of another model: no business of these masks
    with pytest.raises(ValueError, match=message):
        model(INPUTS)
    handle.remove()
    model(INPUTS)


def test_parts_that_are_gone_and_other_pruning_on_top_are_no_obstacle():
    model, masks = build()
    masking.attach(model, masks)
    torch_prune.random_unstructured(model[0], "weight", 5)
    model[2] = nn.Identity()
    train(model, noisy_gradients)
    model(INPUTS)
    assert not model[0].weight[~masks["0.weight"]].any()


def test_parameters_that_are_spread_over_processes_are_refused():
    model, masks = build()
    model[0].weight.placements = ()  # as a DTensor has them
    before = model[2].weight.clone()
    with pytest.raises(
        ValueError, match="no mask can be attached to 0.weight: .* spread over processes"
    ):
        masking.attach(model, masks)
    assert torch.equal(before, model[2].weight)


def test_two_masks_of_one_parameter_by_two_names():
    model = nn.ModuleDict(
        {"first": nn.Linear(2, 2, bias=False), "second": nn.Linear(2, 2, bias=False)}
    )
    model["second"].weight = model["first"].weight
    masks = {
        "first.weight": torch.tensor([[True, False], [True, True]]),
        "second.weight": torch.tensor([[True, True], [False, True]]),
    }
    masking.attach(model, masks)
    model["second"].weight = nn.Parameter(torch.ones(2, 2))  # no longer shared
    model["second"](torch.ones(1, 2))
    assert torch.equal(model["second"].weight.detach(), torch.eye(2))


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.complex128]
)
def test_pruned_entries_are_zero_in_every_type_and_whatever_they_hold(dtype):
    model = nn.Linear(5, 3).to(dtype)
    mask = torch.rand(3, 5) < 0.5
    masking.attach(model, {"weight": mask})
    model.weight.data.fill_(float("nan"))
    model.weight.grad = torch.full_like(model.weight, float("inf"))
    model(torch.ones(1, 5, dtype=dtype))
    assert torch.equal(model.weight != 0, mask)
    sgd(model.parameters()).step()
    assert torch.equal(model.weight != 0, mask) and torch.equal(model.weight.grad != 0, mask)


def test_no_model_is_kept_alive():
    model, masks = build()
    handle = masking.attach(model, masks)
    memory = torch.multiprocessing.reductions.StorageWeakRef(model[0].weight.untyped_storage())
    gc.disable()
    try:
        del model
        assert memory.expired()
    finally:
        gc.enable()
    handle.remove()


def test_a_tensor_in_the_place_of_a_parameter_is_masked_too():
    """A replica of data parallelism has tensors of the same names, which are no parameters."""
    layer = nn.Linear(3, 2, bias=False)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    masking.attach(layer, {"weight": mask})
    del layer._parameters["weight"]
    layer.weight = torch.ones(2, 3)
    outputs = layer(torch.ones(1, 3))
    assert outputs.tolist() == [[2.0, 2.0]]


def test_a_parameter_made_sparse_is_refused_by_name():
    model, masks = build()
    handle = masking.attach(model, masks)
    dense = model[0].weight.detach()
    model[0].weight = nn.Parameter(dense.to_sparse(), requires_grad=False)
    with pytest.raises(ValueError, match="0.weight .* is sparse now .*: call remove"):
        model(INPUTS)
    handle.remove()
    assert torch.equal(model[0].weight.to_dense(), dense)
