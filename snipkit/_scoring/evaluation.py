"""A model as it is scored: its modes, without dropout, hooks and chance."""

import contextlib
import inspect
from collections import OrderedDict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from snipkit._prunable import is_norm
from snipkit._weights import overlaps_itself


@contextlib.contextmanager
def evaluating(model: nn.Module, batch_norm: str) -> Iterator[None]:
    """Set modes for scoring; put modes, buffers and gradients back after it.

    Normalisation layers keep the mode that ``batch_norm`` says, even if a closure calls
    ``model.train()``. Hooks on gradients do not run: they would clip or mask what is the derivative
    of the loss.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    norms = [module for module in modules if is_norm(module)]
    buffers = []
    for module in modules:
        for name, buffer in module.named_buffers(recurse=False):
            buffers.append((module, name, buffer, buffer.clone() if _can_change(buffer) else None))
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    # cuDNN has no backward pass for recurrent layers in evaluation mode. But for dropout the modes
    # are the same function.
    recurrent = [(module, module.dropout) for module in modules if isinstance(module, nn.RNNBase)]
    handles: list[RemovableHandle] = []

    def set_mode(module, _inputs=None):
        module.training = batch_norm == "train"

    with _no_gradient_hooks(model):
        try:
            for module in modules:
                module.training = False
            for module in norms:
                set_mode(module)
                handles.append(module.register_forward_pre_hook(set_mode))
            for layer, _ in recurrent:
                layer.training = True
                layer.dropout = 0.0
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, training in zip(modules, modes):
                module.training = training
            for layer, dropout in recurrent:
                layer.dropout = dropout
            for parameter, stored in gradients:
                parameter.grad = stored
            with torch.no_grad():
                for module, name, buffer, content in buffers:
                    # A forward pass may have put another buffer in its place.
                    setattr(module, name, buffer)
                    if content is not None:
                        if buffer.shape != content.shape:  # an observer of quantisation grows
                            buffer.resize_(content.shape)
                        buffer.copy_(content)


def _can_change(buffer: Tensor) -> bool:
    """Whether a tensor can be written to: not if it is sparse, or if entries share their memory."""
    if buffer.layout != torch.strided or nn.parameter.is_lazy(buffer):
        return False
    return not overlaps_itself(buffer)


@contextlib.contextmanager
def _no_gradient_hooks(model: nn.Module) -> Iterator[None]:
    """Without the hooks on parameters and modules that see, and may change, gradients."""
    parameters = [p for p in model.parameters() if p._backward_hooks]
    stored = [parameter._backward_hooks for parameter in parameters]
    places = []
    for module in model.modules():
        for attribute in ("_backward_hooks", "_backward_pre_hooks"):
            if vars(module).get(attribute):
                places.append((module, attribute, vars(module)[attribute]))
    try:
        for parameter in parameters:
            parameter._backward_hooks = None
        for module, attribute, _ in places:
            setattr(module, attribute, OrderedDict())
        yield
    finally:
        for parameter, hooks in zip(parameters, stored):
            parameter._backward_hooks = hooks
        for module, attribute, hooks in places:
            setattr(module, attribute, hooks)


DROPOUTS = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
    torch.dropout_,
    torch.alpha_dropout,
    torch.alpha_dropout_,
    torch.feature_dropout,
    torch.feature_dropout_,
    torch.feature_alpha_dropout,
    torch.feature_alpha_dropout_,
}
ATTENTION = inspect.signature(F.multi_head_attention_forward)


class _AsInEvaluation(TorchFunctionMode):
    """Dropout is off however it is called, and activations get no hooks on their gradients."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if function is F.scaled_dot_product_attention:
            args, kwargs = args[:4] + (0.0,) * (len(args) > 4) + args[5:], kwargs
            if "dropout_p" in kwargs:
                kwargs = kwargs | {"dropout_p": 0.0}
        elif function is F.multi_head_attention_forward:
            bound = ATTENTION.bind(*args, **kwargs)
            bound.arguments["dropout_p"] = 0.0
            args, kwargs = bound.args, bound.kwargs
        elif function is Tensor.register_hook:
            return RemovableHandle(OrderedDict())
        return function(*args, **kwargs)


@contextlib.contextmanager
def same_every_time(device: torch.device, seed: int) -> Iterator[None]:
    """Without dropout, with the same random numbers every time; the caller's stay untouched."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []), _AsInEvaluation():
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def no_tf32():
    """On a GPU, convolutions are in TF32 by default, which has 10 bits: too few for a ranking."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.benchmark_limit,
        cudnn.deterministic,
        allow_tf32=False,
    )
