"""The energy network with an auxiliary read-out: a second, weaker field from the same pass through the network.

The auxiliary read-out is a last layer and a gain of its own on the features after hidden layer ``auxiliary``:

    G_mid(x; sigma, c) = -|x*|^2 / 2 + g_mid / (sigma n) sum_i (W_mid h_k)_i^2,   h_k the features after k SiLUs

with the symbols of ``toyguide.fields.networks``. Both fields share the first k layers and are trained together
(``toyguide.training``). The auxiliary one has seen the same data for the same time and can do less.

References:
    Internal Guidance, 2025, arXiv 2512.24176.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toyguide.errors import InputError
from toyguide.fields.networks import EnergyMLP, unit_rows

__all__ = ["TwoHeadedMLP"]


class TwoHeadedMLP(EnergyMLP):
    """A learned field with an auxiliary one inside.

    Args:
        dim, width, layers, sigma_data, labels, generator, bounded: As of :class:`EnergyMLP`, whose initial weights it
            has for the same generator.
        auxiliary: The hidden layer after which the auxiliary read-out is, from 1 to below ``layers``.

    Raises:
        InputError: If there is no such layer.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        layers: int,
        sigma_data: Tensor,
        labels: tuple[str, ...] = (),
        generator: torch.Generator | None = None,
        bounded: bool = False,
        *,
        auxiliary: int,
    ) -> None:
        if not 1 <= auxiliary < layers:
            raise InputError(f"auxiliary = {auxiliary}: expected a hidden layer before the last, 1 to {layers - 1}")
        super().__init__(dim, width, layers, sigma_data, labels, generator, bounded)
        self.auxiliary = auxiliary
        self.auxiliary_weights = nn.Parameter(torch.randn(width, width, generator=generator, dtype=torch.float32))
        self.auxiliary_gain = nn.Parameter(self.gain.detach().clone())
        self._read_out: tuple[EnergyMLP, ...] = ()  # a tuple, so that it is not taken for a part of the network
        unit_rows([self.auxiliary_weights])

    @property
    def middle(self) -> EnergyMLP:
        """The auxiliary field, at this network's label. Shares the weights."""
        # The label and a move to another device replace the buffers.
        if not self._read_out or self._read_out[0].label_code is not self.label_code:
            self._read_out = (self.early_exit(self.auxiliary),)
        return self._read_out[0]

    def early_exit(self, layers: int) -> EnergyMLP:
        """As of :class:`EnergyMLP`; at the auxiliary layer it is read out by the auxiliary read-out."""
        cut = super().early_exit(layers)
        if layers == self.auxiliary:
            cut.weights[-1] = self.auxiliary_weights
            cut.gain = self.auxiliary_gain
            cut._parameters_in_order = tuple(cut.parameters())
        return cut

    def normalize(self) -> None:
        super().normalize()
        unit_rows([self.auxiliary_weights])
