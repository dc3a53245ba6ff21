"""The paper's recurrent networks: an MNIST digit read row by row (SNIP, table 2)."""

import torch
from torch import nn
from torch.nn.functional import linear

from snipkit.models.layers import only_size, scaled


class _RowReader(nn.Module):
    """28 rows of 28 pixels → linear to h → one recurrent layer → linear on the last state.

    Attributes:
        kernel: "loop" over the rows, or "fused", torch's own recurrent layer. That is for training
            mode only: it has no second derivative, and cuDNN's has none in evaluation mode.
        training_kernel: the ``kernel`` while ``training.train`` runs. At all other times it is
            "loop", so scores and test errors do not depend on it.
    """

    kernel = "loop"
    training_kernel = "loop"

    def __init__(self, num_classes, units, width, image_size, gates):
        super().__init__()
        only_size(28, image_size)
        self.units = units = scaled(units, width)
        self.embed = nn.Linear(28, units)
        self.gates = nn.Linear(2 * units, gates * units)
        self.candidate = nn.Linear(2 * units, units) if gates == 2 else None
        self.last = nn.Linear(units, num_classes)

    def rows(self, x):
        """(B, 1, 28, 28) → (28, B, units): each row through the input layer."""
        return self.embed(x.squeeze(1)).transpose(0, 1)

    def driven(self, rows, layer):
        """What all rows add to a layer's outputs (28, B, outputs); its weights of the state."""
        of_input, of_state = layer.weight.split(self.units, dim=1)
        return linear(rows, of_input, layer.bias), of_state.t()


class LSTM(_RowReader):
    """One LSTM layer; 136,586 parameters with 128 units (LSTM-s), 535,306 with 256 (LSTM-b).

    The authors never published theirs. Only a linear layer with bias before the cell, and one bias
    a gate, gives all the paper's counts. We chose: no non-linearity after that layer, and a
    constant 1 added to the forget gate, as in TensorFlow's cell, so that every bias *parameter*
    starts at zero. Weights see the input and the state as one vector.
    """

    training_kernel = "fused"

    def __init_subclass__(cls):
        """A subclass may change the loop: it trains by the loop, unless it says otherwise."""
        cls.training_kernel = vars(cls).get("training_kernel", "loop")

    def __init__(self, num_classes=10, units=128, width=1.0, image_size=28):
        super().__init__(num_classes, units, width, image_size, gates=4)

    def forward(self, x):
        fused = self.kernel == "fused" and self.training
        return self.last(self.state_by_torch(x) if fused else self.state_by_loop(x))

    def state_by_loop(self, x):
        """The state (B, units) after the last row."""
        driven, of_state = self.driven(self.rows(x), self.gates)
        state = cell = driven.new_zeros(x.shape[0], self.units)
        for row in driven.unbind(0):
            enter, forget, leave, new = torch.addmm(row, state, of_state).chunk(4, dim=1)
            cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(new)
            state = torch.sigmoid(leave) * torch.tanh(cell)
        return state

    def state_by_torch(self, x):
        """The same, but for rounding, by torch's LSTM (oneDNN's on a CPU, cuDNN's on a GPU)."""
        of_input, of_state = _in_torchs_order(self.gates.weight).split(self.units, dim=1)
        bias = _in_torchs_order(self.gates.bias)
        # Two linear layers in a row are one layer. It has 28 inputs, where the gates have
        # ``units``: a third less to compute in a step of LSTM-b.
        of_pixels = of_input @ self.embed.weight
        bias = torch.addmv(bias, of_input, self.embed.bias)
        # torch's LSTM has a second bias, which takes the constant of the forget gate.
        constant = torch.zeros_like(bias)
        constant[self.units : 2 * self.units] = 1
        parts = [of_pixels, of_state, bias, constant]
        # One after the other in memory, as cuDNN wants them: else it would copy them, and warn.
        flat = torch.cat([part.flatten() for part in parts]).split([part.numel() for part in parts])
        weights = [piece.view_as(part) for piece, part in zip(flat, parts)]
        rows = x.squeeze(1).transpose(0, 1)
        start = x.new_zeros(1, x.shape[0], self.units)
        _, state, _ = torch.lstm(
            rows,
            (start, start),
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=True,
            bidirectional=False,
            batch_first=False,
        )
        return state.squeeze(0)


def _in_torchs_order(gates):
    """The gates' rows enter, forget, leave, new → enter, forget, new, leave."""
    enter, forget, leave, new = gates.chunk(4)
    return torch.cat([enter, forget, new, leave])


class GRU(_RowReader):
    """One GRU layer; 103,690 parameters with 128 units (GRU-s), 403,978 with 256 (GRU-b).

    ``LSTM`` says what we chose. The reset gate acts on the state before the candidate's weights (as
    in TensorFlow's cell and Cho et al. 2014), where torch's acts after them: there is no fused
    kernel. A constant 1 is added to both gates; TensorFlow started their biases at 1.
    """

    def __init__(self, num_classes=10, units=128, width=1.0, image_size=28):
        super().__init__(num_classes, units, width, image_size, gates=2)

    def forward(self, x):
        rows = self.rows(x)
        gate_rows, gates_of_state = self.driven(rows, self.gates)
        new_rows, new_of_state = self.driven(rows, self.candidate)
        state = gate_rows.new_zeros(x.shape[0], self.units)
        for gate_row, new_row in zip(gate_rows.unbind(0), new_rows.unbind(0)):
            reset, update = torch.sigmoid(torch.addmm(gate_row, state, gates_of_state) + 1).chunk(
                2, dim=1
            )
            new = torch.tanh(torch.addmm(new_row, reset * state, new_of_state))
            state = update * state + (1 - update) * new
        return self.last(state)
