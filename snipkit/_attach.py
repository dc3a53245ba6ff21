"""The hooks behind ``masking.attach``: pruned entries are 0 wherever parameters are read or saved.

The hooks belong to the modules, not to the parameters. So they find a parameter by its name at the
moment of use, whatever has replaced it by then, and a copied, pickled or moved model keeps its
masks.
"""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from snipkit._copies import copied
from snipkit._weights import storage_of

# An integer type for each size of an entry in bytes.
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Pruned:
    """Which entries of a parameter are pruned.

    As a hook of the parameter, it zeros them in a gradient that is complete.
    """

    def __init__(self, entries: Tensor) -> None:
        self.entries = entries
        self._moved: dict[torch.device, Tensor] = {}
        self._kept_bits: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Tensor]:
        return {"entries": self.entries}

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def on(self, device: torch.device) -> Tensor:
        if device not in self._moved:
            self._moved[device] = self.entries.to(device)
        return self._moved[device]

    def fill_(self, tensor: Tensor) -> None:
        """Zero the pruned entries, in place. (A NaN times 0 would be NaN.)"""
        size = tensor.element_size()
        plain = type(tensor) is Tensor and not tensor.requires_grad and size in INTEGERS
        if tensor.device.type != "cpu" or not plain:
            tensor.masked_fill_(self.on(tensor.device), 0)
            return
        # On a CPU, masked_fill_ takes 50 times as long as a bitwise "and".
        if size not in self._kept_bits:
            kept = ~self.on(tensor.device)
            self._kept_bits[size] = -kept.to(INTEGERS[size])  # all bits or none
        tensor.view(INTEGERS[size]).bitwise_and_(self._kept_bits[size])

    def __call__(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        # torch cannot fill a sparse one.
        if gradient is not None and gradient.layout == torch.strided:
            self.fill_(gradient)


class MaskHook:
    """Masks a module's parameters, and those of its parts, when it is called, loaded or saved."""

    def __init__(self, module: nn.Module, pruned: dict[str, Pruned]) -> None:
        self.pruned = pruned  # by the parameter's name within the module
        self.module = weakref.ref(module)
        self._gradient_handles: list[Any] = []
        _watch(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module(), "pruned": self.pruned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and loaded models come through here, so their optimisers are watched as well.
        self.__init__(**state)  # type: ignore[misc]

    def register(self) -> None:
        module = self.module()
        assert module is not None
        module.register_forward_pre_hook(self)
        module.register_load_state_dict_post_hook(self)
        module.register_state_dict_pre_hook(self)
        self(module)

    def remove(self) -> None:
        """Take the hook off its module and off the gradients."""
        _HOOKS.discard(self)
        while self._gradient_handles:
            self._gradient_handles.pop().remove()
        module = self.module()
        if module is None:
            return
        for hooks in (
            module._forward_pre_hooks,
            module._load_state_dict_post_hooks,
            module._state_dict_pre_hooks,
        ):
            for key, hook in list(hooks.items()):
                if hook is self:
                    del hooks[key]

    def __call__(self, module: nn.Module, *_: Any) -> None:
        # A traced hook would become a part of the program, and stay there after remove().
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or _suspensions:
            return
        if self.module() is None:  # another module has taken over the hooks, as in quantisation
            self.module = weakref.ref(module)
        for owner, own_name, pruned in self.located(module):
            self.mask_(owner, own_name, pruned)

    @torch.no_grad()
    def mask_(self, owner: nn.Module, own_name: str, pruned: Pruned) -> None:
        """Zero the pruned entries, and see to it that those of the gradient will be."""
        parameter = getattr(owner, own_name)
        if not isinstance(parameter, nn.Parameter):
            # functional_call or data parallelism has put a tensor in its place.
            with torch.enable_grad():
                masked = parameter.masked_fill(pruned.on(parameter.device), 0)
            if own_name in owner._parameters:
                owner._parameters[own_name] = masked  # type: ignore[assignment]
            else:
                setattr(owner, own_name, masked)
            return
        # Through .data, since writing must not count as a change: a layer may be called twice
        # before backward().
        pruned.fill_(parameter.data)
        gradient_hooks = parameter._post_accumulate_grad_hooks or {}
        if parameter.requires_grad and not any(hook is pruned for hook in gradient_hooks.values()):
            self._gradient_handles.append(parameter.register_post_accumulate_grad_hook(pruned))

    def located(
        self, module: nn.Module, strict: bool = True
    ) -> Iterator[tuple[nn.Module, str, Pruned]]:
        """(owner, name in it, pruned entries) of the masked parameters that the module still has.

        Raises:
            ValueError: if strict, for a parameter that cannot be masked any more; it is left out
                otherwise.
        """
        for name, pruned in self.pruned.items():
            prefix, _, own_name = name.rpartition(".")
            try:
                owner = module.get_submodule(prefix)
            except AttributeError:
                continue  # the part is gone, so nothing reads its parameters
            if f"{own_name}_orig" in owner._parameters:
                # torch.nn.utils.prune and spectral_norm leave a 0 at 0.
                own_name += "_orig"
            problem = _problem(owner, own_name, pruned)
            if problem and strict:
                raise ValueError(
                    f"the mask attached to {name} of {type(module).__name__} does not hold: "
                    f"{problem}"
                )
            # In a quantised layer it is a method.
            if not problem and torch.is_tensor(getattr(owner, own_name, None)):
                yield owner, own_name, pruned


def _problem(owner: nn.Module, own_name: str, pruned: Pruned) -> str | None:
    """Why a parameter cannot be masked any more."""
    advice = "call remove() on what attach returned"
    if is_parametrized(owner, own_name) or f"{own_name}_g" in owner._parameters:
        return (
            "the parameter is computed from others now (a parametrization, weight norm), so a 0 in "
            f"it is no pruned connection: {advice}, or undo that"
        )
    parameter = getattr(owner, own_name, None)
    if torch.is_tensor(parameter) and parameter.layout != torch.strided:
        return f"the parameter is sparse now ({parameter.layout}): {advice} before that"
    if torch.is_tensor(parameter) and parameter.shape != pruned.entries.shape:
        shapes = f"{tuple(pruned.entries.shape)}, the parameter is now {tuple(parameter.shape)}"
        return f"it is of shape {shapes}: {advice}, and attach new masks"
    return distributed(parameter)


def distributed(parameter: object) -> str | None:
    """Why a parameter of which each process has a part cannot be masked; None for any other."""
    if not hasattr(parameter, "placements"):
        return None
    return (
        "the parameter is spread over processes (a DTensor): mask the parameter and the gradient "
        "each part yourself"
    )


class Attachment:
    """Masks that are attached to a model; ``remove()`` takes them off."""

    def __init__(self, hooks: list[MaskHook]) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hooks off; the weights stay as they are."""
        while self._hooks:
            self._hooks.pop().remove()


def hooks_for(model: nn.Module, pruned: dict[str, Pruned]) -> list[MaskHook]:
    """A hook for the model, for each module with a masked parameter, and for the parents of those.

    The model alone is not enough, since parts of it may be called by themselves; nor are the
    owners, since some are never called: their parents read the weights.
    """
    names_in_module: dict[nn.Module, dict[str, Pruned]] = {}
    for name, entries in pruned.items():
        steps = name.split(".")
        for start in {0, max(0, len(steps) - 2), len(steps) - 1}:
            module = model.get_submodule(".".join(steps[:start]))
            names_in_module.setdefault(module, {})[".".join(steps[start:])] = entries
    return [MaskHook(module, names) for module, names in names_in_module.items()]


def hooks_of(model: nn.Module) -> list[MaskHook]:
    """The hooks that a model has, be it from ``attach`` or from what it was copied from."""
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    return [hook for hook in hooks if isinstance(hook, MaskHook)]


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Calls mask nothing meanwhile: for what records the operations of a model, masked already."""
    _suspensions.append(True)
    try:
        yield
    finally:
        _suspensions.pop()


def bare_copy(model: nn.Module) -> nn.Module:
    """A deep copy without the masks that are attached to the model, to try something on."""
    twin = copied(model)
    for hook in hooks_of(twin):
        hook.remove()
    return twin


# The hooks live as long as their modules do. An optimiser knows no modules, so all steps are
# watched from here.
_HOOKS: weakref.WeakSet[MaskHook] = weakref.WeakSet()
_step_handles: list[Any] = []
_suspensions: list[bool] = []


def _watch(hook: MaskHook) -> None:
    if not _step_handles:
        _step_handles.append(register_optimizer_step_pre_hook(_before_step))
        _step_handles.append(register_optimizer_step_post_hook(_after_step))
    _HOOKS.add(hook)


def _before_step(optimizer: Optimizer, *_: Any) -> None:
    """Mask gradients that did not come by backward(), or were changed after it."""
    with torch.no_grad():
        for _hook, owner, own_name, pruned in _stepped(optimizer):
            pruned(getattr(owner, own_name))


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    """Mask what the step has moved, by older momentum or by mixing the entries of a matrix."""
    for hook, owner, own_name, pruned in _stepped(optimizer):
        hook.mask_(owner, own_name, pruned)


def _stepped(optimizer: Optimizer) -> Iterator[tuple[MaskHook, nn.Module, str, Pruned]]:
    """The masked parameters that an optimiser moves, each mask once."""
    if not _HOOKS:
        return
    # Storages are compared, since two parameters may share their memory.
    storages = {
        storage_of(parameter) for group in optimizer.param_groups for parameter in group["params"]
    }
    seen = set()
    for hook in list(_HOOKS):
        module = hook.module()
        if module is None:
            continue
        for owner, own_name, pruned in hook.located(module, strict=False):
            parameter = getattr(owner, own_name)
            key = id(parameter), id(pruned)
            if storage_of(parameter) in storages and key not in seen:
                seen.add(key)
                yield hook, owner, own_name, pruned
