"""The magnitude-preserving energy MLP: a small network whose output is a log-density and whose gradient is a score.

    x* = x / sqrt(sigma^2 + sigma_data^2)                                  (per axis)
    G(x; sigma, c) = -|x*|^2 / 2 + g / (sigma n) sum_i F_i(x*; log(sigma) / 4, c)^2

G is the unnormalised log-density (Karras et al. 2024, Eq. 14, whose minus sign before g is absorbed by g, which is
learned and starts at 0). F is an MLP of magnitude-preserving layers: every weight row has unit norm, so a layer
neither grows nor shrinks its input (Karras et al. 2023b, Eqs. 47 and 66; SiLU divided by its gain 0.596).

The gradient and the Hessian of G with respect to x are written out by hand below, so that a score costs one pass
forward and one back without autograd, in training too, and a Hessian as much again for each axis.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Appendix C.
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2023, arXiv 2312.02696.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyguide.errors import InputError, unknown
from toyguide.fields import Field, Sigma, as_sigma

__all__ = ["EnergyMLP"]

_SILU_GAIN = 0.596  # the RMS of silu(z) for z ~ N(0, 1)

# A processor works through points in blocks with about this many features in a layer: its intermediate results then
# stay in the cache and their memory is used again, where a large batch would fault in new pages at every operation.
_BLOCK = 1 << 17


class EnergyMLP(nn.Module, Field):
    """A learned field.

    Args:
        dim: The dimension of the data.
        width: The features of each hidden layer.
        layers: The number of hidden layers after the input layer.
        sigma_data: The data's per-axis standard deviation, with shape ``(dim,)``.
        labels: The classes of a label-conditional network, in order; empty for a network without label input.
            Two classes are one input of ±1, more are one-hot; the union is 0 in either case.
        generator: The random numbers of the initial weights.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        layers: int,
        sigma_data: Tensor,
        labels: tuple[str, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.sigma_data: Tensor
        self.label_code: Tensor
        self.dim, self.width, self.layers, self.labels = dim, width, layers, tuple(labels)
        label_inputs = {0: 0, 2: 1}.get(len(labels), len(labels))
        sizes = [dim + 2 + label_inputs, *[width] * (layers + 1)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n_out, n_in, generator=generator)) for n_in, n_out in itertools.pairwise(sizes)
        )
        self.gain = nn.Parameter(torch.zeros(()))
        self.register_buffer("sigma_data", torch.as_tensor(sigma_data, dtype=torch.float32).clone())
        self.register_buffer("label_code", torch.zeros(label_inputs), persistent=False)
        self._kept: tuple[tuple[object, ...], list[Tensor]] | None = None
        self.label: str | None = None
        self.metadata: dict[str, object] = {}
        self.normalize()

    def with_label(self, label: str | None) -> EnergyMLP:
        """A view of a label-conditional network (the same weights) at one class, or at the union for None.

        Raises:
            InputError: If the network takes no labels, or not this one.
        """
        view = copy.copy(self)
        view._buffers = dict(self._buffers)
        view.label = label
        view._buffers["label_code"] = self.code(label).to(self.gain)
        return view

    def code(self, label: str | None) -> Tensor:
        """The label's input to the network, with shape ``(label inputs,)``."""
        code = torch.zeros(len(self.label_code))
        if label is None:
            return code
        if not self.labels:
            raise InputError(f"label {label!r}: this network takes no label")
        if label not in self.labels:
            raise unknown("label", label, self.labels)
        index = self.labels.index(label)
        if len(code) == 1:
            return code + (1.0, -1.0)[index]
        code[index] = math.sqrt(len(code))  # unit magnitude on average over the inputs, like the other inputs
        return code

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring every weight row back to norm sqrt(inputs): training moves directions, not magnitudes."""
        for w in self.weights:
            w.mul_(math.sqrt(w.shape[1]) / w.norm(dim=1, keepdim=True))

    def log_density(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The unnormalised log-density G, with shape ``(...)``."""
        return self._blockwise(self._energy, x, sigma, self.label_code, ())

    def score(self, x: Tensor, sigma: Sigma, code: Tensor | None = None) -> Tensor:
        """``grad_x G``, with shape ``(..., d)``.

        Args:
            x: Points, with shape ``(..., d)``.
            sigma: Noise levels, positive; a scalar or broadcasting to ``x.shape[:-1]``.
            code: Label inputs for each point, with shape ``(..., label inputs)``; by default those of ``label``.
        """
        return self._blockwise(self._gradient, x, sigma, self.label_code if code is None else code, (self.dim,))

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The Jacobian of the score, with shape ``(..., d, d)``."""
        return self._blockwise(self._jacobian, x, sigma, self.label_code, (self.dim, self.dim))

    def _blockwise(
        self, function: Callable[..., Tensor], x: Tensor, sigma: Sigma, code: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """Apply ``function`` to blocks of points and put its results, each ``(n, *shape)``, back together.

        ``function`` is given the layers' rows, x of shape (n, d), sigma (n, 1) and the label inputs (n, label inputs).
        """
        if x.shape[-1] != self.dim:
            raise InputError(f"points of dimension {x.shape[-1]}: expected dimension {self.dim}")
        batch = x.shape[:-1]
        points = x.reshape(-1, self.dim)
        s = as_sigma(sigma, x).expand(*batch, 1).reshape(len(points), 1)
        codes = code.to(x).expand(*batch, -1).reshape(len(points), len(self.label_code))

        in_training = torch.is_grad_enabled() and self.gain.requires_grad  # autograd keeps everything anyway
        rows = self._unit_rows(x.dtype) if in_training else self._kept_rows(x.dtype)
        planes = self.dim if len(shape) == 2 else 1
        size = max(1, len(points) if in_training or not x.is_cpu else _BLOCK // (self.width * planes))
        parts = [
            function(rows, *block) for block in zip(points.split(size), s.split(size), codes.split(size), strict=True)
        ]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.reshape((*batch, *shape))

    def _unit_rows(self, dtype: torch.dtype) -> list[Tensor]:
        """The layers' unit rows; those behind a SiLU undo its gain too, which costs nothing here."""
        gains = [1.0] + [_SILU_GAIN] * self.layers
        return [(w / (g * w.norm(dim=1, keepdim=True))).to(dtype) for w, g in zip(self.weights, gains, strict=True)]

    @torch.no_grad()
    def _kept_rows(self, dtype: torch.dtype) -> list[Tensor]:
        """The same, made again only after the weights have changed or moved."""
        state = (dtype, self.gain.device, *(w._version for w in self.weights), *(w.data_ptr() for w in self.weights))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._unit_rows(dtype))
        return self._kept[1]

    def _inputs(self, x: Tensor, s: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """The scale of each axis, with shape (n, d), and the inputs of F, x* first, with shape (n, inputs)."""
        scale = (s.square() + self.sigma_data.to(x).square()).rsqrt()
        return scale, torch.cat([x * scale, s.log() / 4, torch.ones_like(s), code], -1)

    def _strength(self, s: Tensor) -> Tensor:
        """What the sum of F^2 is multiplied by, with shape (n, 1)."""
        return self.gain.to(s.dtype) / (s * self.width)

    def _energy(self, rows: list[Tensor], x: Tensor, s: Tensor, code: Tensor) -> Tensor:
        """G, with shape (n,)."""
        _, h = self._inputs(x, s, code)
        x_star = h[:, : self.dim]
        for row in rows[:-1]:
            h = functional.silu(h @ row.T)
        out = h @ rows[-1].T  # F, with shape (n, width)
        return (self._strength(s) * out.square()).sum(-1) - 0.5 * x_star.square().sum(-1)

    def _gradient(self, rows: list[Tensor], x: Tensor, s: Tensor, code: Tensor) -> Tensor:
        """G's gradient, with shape (n, d): through the layers and back."""
        scale, h = self._inputs(x, s, code)
        x_star, one = h[:, : self.dim], h.new_ones(())
        slopes: list[Tensor] = []  # of each SiLU: gate + h (1 - gate)
        for row in rows[:-1]:
            a = h @ row.T
            gate = a.sigmoid()
            h = a * gate
            slopes.append(h.lerp(one, gate))
        out = h @ rows[-1].T

        back = 2 * self._strength(s) * out @ rows[-1]
        for row, slope in zip(rows[-2::-1], slopes[::-1], strict=True):
            back = (back * slope) @ row
        return (back[:, : self.dim] - x_star) * scale

    def _jacobian(self, rows: list[Tensor], x: Tensor, s: Tensor, code: Tensor) -> Tensor:
        """G's Hessian, with shape (n, d, d): as ``_gradient``, with derivatives ``d_`` along each axis."""
        scale, h = self._inputs(x, s, code)
        d_h = functional.pad(torch.diag_embed(scale), (0, h.shape[1] - self.dim))  # (n, d, inputs)
        slopes: list[Tensor] = []  # (n, width)
        d_slopes: list[Tensor] = []  # (n, d, width)
        for row in rows[:-1]:
            a, d_a = h @ row.T, d_h @ row.T
            gate = a.sigmoid()
            h = a * gate
            slope = gate + h * (1 - gate)
            d_h = slope[:, None] * d_a
            slopes.append(slope)
            d_slopes.append((gate * (1 - gate) * (2 + a * (1 - 2 * gate)))[:, None] * d_a)
        out, d_out = h @ rows[-1].T, d_h @ rows[-1].T

        strength = 2 * self._strength(s)
        back, d_back = strength * out @ rows[-1], strength[:, None] * d_out @ rows[-1]
        for row, slope, d_slope in zip(rows[-2::-1], slopes[::-1], d_slopes[::-1], strict=True):
            d_back = (d_back * slope[:, None] + back[:, None] * d_slope) @ row
            back = (back * slope) @ row
        jacobian = d_back[..., : self.dim] * scale[:, None] - torch.diag_embed(scale.square())
        return 0.5 * (jacobian + jacobian.mT)
