"""The paper's recurrent networks: an MNIST digit read row by row (SNIP, table 2)."""

import torch
from torch import nn

from snipkit.models.layers import scaled


class _RowReader(nn.Module):
    """28 rows of 28 pixels → linear to h → one recurrent layer → linear on the last state."""

    def __init__(self, units, image_size):
        super().__init__()
        if image_size != 28:
            raise ValueError(f"this network reads images of 28 rows, not {image_size}")
        self.units = units
        self.embed = nn.Linear(28, units)

    def rows(self, x):
        """(B, 1, 28, 28) → (28, B, units): each row through the input layer."""
        return self.embed(x.squeeze(1)).transpose(0, 1)


class LSTM(_RowReader):
    """One LSTM layer; 136,586 parameters with 128 units (LSTM-s), 535,306 with 256 (LSTM-b).

    The authors never published theirs. A linear layer with bias before the cell, and one bias a gate, is the only reading
    that gives all the paper's counts. Unknown and chosen: no non-linearity after that layer; a constant 1 is added to the forget gate, as
    TensorFlow's cell did, so that every bias *parameter* starts at zero. Weights see the input and the state as one vector, as there.

    ``forward``: (B, 1, 28, 28) → (B, num_classes).

    Args:
        units: of the input layer and of the cell.
        width: scales the units.
    """

    def __init__(self, num_classes=10, units=128, width=1.0, image_size=28):
        super().__init__(scaled(units, width), image_size)
        self.gates = nn.Linear(2 * self.units, 4 * self.units)
        self.last = nn.Linear(self.units, num_classes)

    def forward(self, x):
        of_input, of_state = self.gates.weight.split(self.units, dim=1)
        driven = nn.functional.linear(self.rows(x), of_input, self.gates.bias)  # all rows at once
        state = cell = driven.new_zeros(x.shape[0], self.units)
        for row in driven.unbind(0):
            enter, forget, leave, new = torch.addmm(row, state, of_state.t()).chunk(4, dim=1)
            cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(new)
            state = torch.sigmoid(leave) * torch.tanh(cell)
        return self.last(state)


class GRU(_RowReader):
    """One GRU layer; 103,690 parameters with 128 units (GRU-s), 403,978 with 256 (GRU-b). See ``LSTM`` for what is a guess.

    The reset gate acts on the state before the candidate's weights (as in TensorFlow's cell and Cho et al. 2014); a constant 1 is
    added to both gates, where TensorFlow started their biases at 1.

    ``forward``: (B, 1, 28, 28) → (B, num_classes).

    Args:
        units: of the input layer and of the cell.
        width: scales the units.
    """

    def __init__(self, num_classes=10, units=128, width=1.0, image_size=28):
        super().__init__(scaled(units, width), image_size)
        self.gates = nn.Linear(2 * self.units, 2 * self.units)
        self.candidate = nn.Linear(2 * self.units, self.units)
        self.last = nn.Linear(self.units, num_classes)

    def forward(self, x):
        gates_of_input, gates_of_state = self.gates.weight.split(self.units, dim=1)
        new_of_input, new_of_state = self.candidate.weight.split(self.units, dim=1)
        rows = self.rows(x)
        gate_rows = nn.functional.linear(rows, gates_of_input, self.gates.bias)
        new_rows = nn.functional.linear(rows, new_of_input, self.candidate.bias)
        state = rows.new_zeros(x.shape[0], self.units)
        for gate_row, new_row in zip(gate_rows.unbind(0), new_rows.unbind(0)):
            reset, update = torch.sigmoid(torch.addmm(gate_row, state, gates_of_state.t()) + 1).chunk(2, dim=1)
            new = torch.tanh(torch.addmm(new_row, reset * state, new_of_state.t()))
            state = update * state + (1 - update) * new
        return self.last(state)
