"""Checks of the labs' answers: each failure is one sentence that says what is wrong and where to
look.

The checks test properties (sums, counts, derivatives by finite differences) on small random
networks in double precision, not one stored number. A check prints a line when all is well, and
raises ``Wrong`` when it is not.
"""

import contextlib
import linecache
import traceback

import torch
from torch import nn
from torch.func import functional_call

CLOSE = dict(rtol=1e-6, atol=1e-10)  # of numbers in double precision


class Wrong(AssertionError):
    """An answer that is not right yet. Jupyter shows the sentence alone, without a traceback.

    Attributes:
        share: of the check's points, what the answer has earned all the same.
    """

    share = 0.0

    def _render_traceback_(self):
        return [f"\N{BALLOT X} {self}"]


def passed(part, sentence):
    print(f"\N{CHECK MARK} {part}: {sentence}")


@contextlib.contextmanager
def after(share):
    """What fails in here comes after ``share`` of the check's points has been earned."""
    try:
        yield
    except Wrong as wrong:
        wrong.share = share
        raise


def need(condition, sentence):
    if not condition:
        raise Wrong(sentence)


def close(a, b):
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), **CLOSE)


def call(function, *arguments):
    """The function's answer.

    What it raises becomes one sentence with the line in which it happened.
    """
    try:
        return function(*arguments)
    except Wrong:
        raise
    except Exception as error:
        code = getattr(function, "__code__", None)
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__
        ]
        own = [frame for frame in frames if code and frame.filename == code.co_filename] or frames
        line = linecache.getline(own[-1].filename, own[-1].lineno).strip() if own else ""
        message = " ".join(str(error).split())
        if "leaf Variable that requires grad" in message:
            message += " Change weights inside `with torch.no_grad():`."
        raise Wrong(
            f"{function.__name__} stopped with {type(error).__name__}: {message}"
            + (f" — in the line: {line}" if line else "")
        ) from None


def answer_of(function, *arguments):
    """The same, for a function that returns something."""
    answer = call(function, *arguments)
    need(
        answer is not None and answer is not ...,
        f"{function.__name__} is not filled in yet, or has no `return`: it gives {answer}",
    )
    return answer


def filled(**answers):
    for name, value in answers.items():
        need(value is not None and value is not ..., f"{name} is not filled in yet")


def network(seed=0):
    """A small network with random weights and biases, in double precision: units 6, 5, 4 and 3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
        ).double()


def examples(seed=0, count=8):
    """Inputs (count, 6) and labels (count,) for ``network``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=generator).double(), torch.arange(count) % 3


def gradients_of(model, loss, inputs, targets):
    weights = dict(model.named_parameters())
    return dict(
        zip(weights, torch.autograd.grad(loss(model(inputs), targets), list(weights.values())))
    )


def derivatives_of(model, loss, inputs, targets):
    """∂L/∂c of every parameter by central differences: no backward pass, no product rule."""
    result = {}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            result[name] = torch.zeros_like(weight)
            for index in range(weight.numel()):
                values = []
                for c in (1 + 1e-5, 1 - 1e-5):
                    moved = weight.clone()
                    moved.view(-1)[index] *= c
                    values.append(loss(functional_call(model, {name: moved}, inputs), targets))
                result[name].view(-1)[index] = (values[0] - values[1]) / 2e-5
    return result


def same_names(answer, expected, what):
    need(
        isinstance(answer, dict),
        f"{what} must be a dict of parameter name → tensor, but it is {type(answer).__name__}",
    )
    need(
        list(answer) == list(expected),
        f"{what} must have the names {', '.join(expected)}, "
        f"in that order; it has {', '.join(map(str, answer))}",
    )
    for name, tensor in expected.items():
        need(
            torch.is_tensor(answer[name]) and answer[name].shape == tensor.shape,
            f"{what}[{name!r}] must be a tensor of shape "
            f"{tuple(tensor.shape)}, as the parameter is",
        )
