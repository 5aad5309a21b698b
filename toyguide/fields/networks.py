"""The magnitude-preserving energy MLP: a small network whose output is a log-density and whose gradient is a score.

    x* = x / sqrt(sigma^2 + sigma_data^2)                                  (per axis)
    G(x; sigma, c) = -|x*|^2 / 2 + g / (sigma n) sum_i F_i(x*; log(sigma) / 4, c)^2

G is the unnormalised log-density (Karras et al. 2024, Eq. 14, whose minus sign before g is absorbed by g). The gain g
is learned, in one of two forms:

    bounded      g = -|gamma|, gamma starts at 0.05
    unbounded    g itself, starts at 0, as in the paper

With g < 0, G is nowhere above the log-density of a Gaussian, so exp(G) can be normalised at every noise level, whatever
the weights are. With g > 0 it cannot wherever |F|^2 grows faster than the Gaussian falls: G rises outwards, and far
points escape. An unbounded g takes its sign by chance in the first steps and rarely changes it (the study
``training-two-basins``). A bounded one is reflected at 0, and trains otherwise as a free one does.

F is an MLP of magnitude-preserving layers: every weight row has unit norm, so a layer neither grows nor shrinks its
input (Karras et al. 2023b, Eqs. 47 and 66; SiLU divided by its gain 0.596).

The gradient of G with respect to x and its derivatives are written out by hand below, so that a score costs one forward
and one backward pass without autograd, in training too, and a derivative along one direction as much again.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Appendix C.
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2023, arXiv 2312.02696.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyguide._speed import compiled
from toyguide._speed.buffers import Scratch, block_size, differentiated
from toyguide.errors import InputError, unknown
from toyguide.fields.base import Field, Sigma, as_points, as_sigma, checked

__all__ = ["SILU_GAIN", "EnergyMLP", "unit_rows"]

SILU_GAIN = 0.596  # the RMS of silu(z) for z ~ N(0, 1)

_FIRST_GAIN = 0.05  # of a bounded network: small, so that training starts close to a Gaussian

_LEVELS = 512  # more than a schedule has, for a few labels


@dataclass(frozen=True)
class _Rows:
    """The layers' normalised weights; those after a SiLU include the division by its gain."""

    hidden: list[Tensor]  # (width, inputs) each, before the SiLUs
    square: Tensor  # |F|^2 = h' square h, with the features h after the last SiLU


@dataclass(frozen=True)
class _Level:
    """What depends on noise level and label only: n rows, or one if all points share both."""

    scale: Tensor  # (n or 1, d), of each axis
    rest: Tensor  # (n or 1, 2 + label inputs), the inputs after x*
    strength: Tensor  # (n or 1, 1), what |F|^2 is multiplied by


@dataclass(frozen=True)
class _Kept:
    """What is computed once for the same weights."""

    state: tuple[object, ...]
    rows: _Rows
    levels: dict[tuple[float, str | None], _Level]

    @cached_property
    def packed(self) -> tuple[Tensor, int]:
        """The rows in the order of the compiled loop, concatenated, and the width they are padded to."""
        filled = -(-len(self.rows.square) // 16) * 16

        def padded(matrix: Tensor, down: int) -> Tensor:
            return functional.pad(matrix, (0, filled - matrix.shape[1], 0, down - matrix.shape[0])).flatten()

        first, *hidden = self.rows.hidden
        parts = [padded(first.T, first.shape[1])]
        parts += [padded(m, filled) for row in hidden for m in (row.T, row)]
        return torch.cat([*parts, padded(self.rows.square, filled)]), filled


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
        bounded: Whether g is kept negative, so that ``exp(G)`` is a density up to a factor.

    Attributes:
        gain: The trained number behind g: gamma of a bounded network, g itself of another.
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
    ) -> None:
        super().__init__()
        self.sigma_data: Tensor
        self.label_code: Tensor
        self.bounded = bounded
        self.dim, self.width, self.layers, self.labels = dim, width, layers, tuple(labels)
        label_inputs = {0: 0, 2: 1}.get(len(labels), len(labels))
        sizes = [dim + 2 + label_inputs, *[width] * (layers + 1)]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(n_out, n_in, generator=generator, dtype=torch.float32))
            for n_in, n_out in itertools.pairwise(sizes)
        )
        self.gain = nn.Parameter(torch.tensor(_FIRST_GAIN if bounded else 0.0, dtype=torch.float32))
        self._parameters_in_order = tuple(self.parameters())  # walking through the lists of an nn.Module is slow
        self.register_buffer("sigma_data", torch.as_tensor(sigma_data, dtype=torch.float32).clone())
        self.register_buffer("label_code", torch.zeros(label_inputs, dtype=torch.float32), persistent=False)
        self._kept: _Kept | None = None
        self.label: str | None = None
        self.metadata: dict[str, object] = {}
        EnergyMLP.normalize(self)

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

    def early_exit(self, layers: int) -> EnergyMLP:
        """The network cut short: its first hidden layers, read out by its last weights. Shares the weights.

        Args:
            layers: How many hidden layers are left, from 1 to ``self.layers``.

        Raises:
            InputError: If there are not so many.
        """
        if not 1 <= layers <= self.layers:
            raise InputError(f"layer {layers}: expected 1 to {self.layers}, the network's hidden layers")
        cut = EnergyMLP(self.dim, self.width, layers, self.sigma_data, self.labels, bounded=self.bounded)
        cut.weights = nn.ParameterList([*self.weights[:layers], self.weights[-1]])
        cut.gain = self.gain
        cut._parameters_in_order = tuple(cut.parameters())
        cut._buffers, cut.label, cut.metadata = dict(self._buffers), self.label, self.metadata
        return cut.eval()

    @property
    def g(self) -> Tensor:
        """The gain g of the module's formula, a scalar."""
        return -self.gain.abs() if self.bounded else self.gain

    def code(self, label: str | None) -> Tensor:
        """The label's input to the network, with shape ``(label inputs,)``."""
        code = torch.zeros(len(self.label_code), dtype=torch.float32)
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

    def normalize(self) -> None:
        """Scale every weight row to norm sqrt(inputs): training changes directions, not magnitudes."""
        for weights in self._of_one_shape():
            unit_rows(weights)

    def log_density(self, x: Tensor, sigma: Sigma, kept: Tensor | None = None) -> Tensor:
        """The unnormalised log-density G, with shape ``(...)``.

        Args:
            x: Points, with shape ``(..., d)``.
            sigma: Noise levels, positive; a scalar or broadcasting to ``x.shape[:-1]``.
            kept: What each hidden unit is multiplied by, with shape ``(..., layers, width)``; None for 1.
        """
        x, sigma = checked(x, sigma, self.dim, positive=True)
        return self._blockwise(self._energy, x, sigma, None, (), *(() if kept is None else (kept,)))

    def score(self, x: Tensor, sigma: Sigma, code: Tensor | None = None) -> Tensor:
        """``grad_x G``, with shape ``(..., d)``.

        Args:
            x: Points, with shape ``(..., d)``.
            sigma: Noise levels, positive; a scalar or broadcasting to ``x.shape[:-1]``.
            code: Label inputs for each point, with shape ``(..., label inputs)``; by default those of ``label``.
        """
        x, sigma = checked(x, sigma, self.dim, positive=True)
        prepared = self.prepare(x, sigma) if code is None else None
        if prepared is not None:
            work, out = prepared
            compiled.run_parallel(work, len(out), self.smallest_chunk)
            return out.reshape(x.shape)
        function = functools.partial(_gradient, self._scratch(x, sigma, code))
        return self._blockwise(function, x, sigma, code, (self.dim,))

    @property
    def smallest_chunk(self) -> int:
        """The fewest points worth their own thread."""
        return max(24, (1 << 19) // self.width**2)

    @property
    def cost(self) -> int:
        """What a score of one point costs relative to another network's: products, and a SiLU's work for each unit."""
        return self.layers * self.width * (self.width + 32)

    def prepare(self, x: Tensor, sigma: Sigma) -> tuple[compiled.Work, Tensor] | None:
        """The compiled work that computes the score at points of shape ``(..., d)``, and the ``(n, d)`` that it
        writes; None where torch has to compute it."""
        if x.dtype != torch.float32 or self.layers == 0 or any(map(differentiated, (x, self.gain, sigma))):
            return None
        if not compiled.available(x):
            return None
        points = x.detach().reshape(-1, self.dim).contiguous()
        if not math.isfinite(points.sum()):  # a sum is not finite if one of them is not
            return None
        kept = self._keep(x)
        if isinstance(sigma, float):
            level = self._shared_level(kept, sigma, x)
        else:
            s = as_sigma(sigma, x).expand(*x.shape[:-1], 1).reshape(-1, 1).detach()
            with torch.no_grad():
                level = self._level(s, self.label_code.to(x).expand(len(points), -1))
        weights, width = kept.packed
        parts = (level.scale.contiguous(), level.rest.contiguous(), level.strength.contiguous())
        out = torch.empty_like(points)
        return compiled.energy_gradient(weights, width, self.layers, points, parts, out), out

    def hessian(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The Jacobian of the score, with shape ``(..., d, d)``."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        axes = torch.eye(self.dim, dtype=x.dtype, device=x.device).expand(*x.shape, self.dim)
        hessian = self._derivatives(x, sigma, axes)
        return 0.5 * (hessian + hessian.mT)

    def jvp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        """The Hessian times vectors ``v``, which broadcast to the shape of ``x``, with shape ``(..., d)``."""
        x, sigma = checked(x, sigma, self.dim, positive=True)
        v = as_points(v).to(x).expand_as(x)
        return self._derivatives(x, sigma, v[..., None, :])[..., 0, :]

    def _derivatives(self, x: Tensor, sigma: Sigma, along: Tensor) -> Tensor:
        """The score's derivatives along m directions at each point, both with shape ``(..., m, d)``."""
        scratch = self._scratch(x, sigma, along, stacked=1 + along.shape[-2])
        return self._blockwise(functools.partial(_derivatives, scratch), x, sigma, None, along.shape[-2:], along)

    def _scratch(self, x: Tensor, *others: Sigma | None, stacked: int | None = None) -> Scratch:
        """Planes for a block, which are not reused where autograd looks at one of the arguments or at the weights."""
        reused = not any(map(differentiated, (self.gain, x, *others)))
        return Scratch(self.layers + 2, self.width, x, reused, stacked)

    def _blockwise(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        sigma: Sigma,
        code: Tensor | None,
        shape: tuple[int, ...],
        *others: Tensor,
    ) -> Tensor:
        """Apply ``function`` to blocks of points and join its results, each ``(n, *shape)``.

        Args:
            function: Of the layers' rows, x of shape (n, d), the level, and a block of each of ``others``.
            x: Points, with shape ``(..., d)``.
            sigma: Their noise level.
            code: Label inputs for each point; None for those of ``label``.
            shape: Of one point's result.
            others: More values for each point, with shapes ``(..., *any)``.
        """
        batch = x.shape[:-1]
        points = x.reshape(-1, self.dim)
        each = [o.reshape(len(points), *o.shape[x.ndim - 1 :]) for o in others]
        in_training = torch.is_grad_enabled() and self.gain.requires_grad  # autograd keeps everything anyway
        planes = (self.layers + 2) * (1 + shape[0] if len(shape) == 2 else 1)
        size = max(1, len(points)) if in_training else block_size(x, self.width * planes)
        starts = range(0, max(1, len(points)), size)

        rows = self._unit_rows(x.dtype) if in_training else self._keep(x).rows
        if isinstance(sigma, float) and code is None and not in_training:
            level = self._shared_level(self._keep(x), sigma, x)
            blocks = ([t[i : i + size] for t in (points, *each)] for i in starts)
            parts = [function(rows, x_i, level, *others_i) for x_i, *others_i in blocks]
        else:
            s = as_sigma(sigma, x).expand(*batch, 1).reshape(len(points), 1)
            code = (self.label_code if code is None else code).to(x)
            code = code.expand(*batch, -1).reshape(len(points), len(self.label_code))
            blocks = ([t[i : i + size] for t in (points, s, code, *each)] for i in starts)
            parts = [function(rows, x_i, self._level(s_i, code_i), *o_i) for x_i, s_i, code_i, *o_i in blocks]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.reshape((*batch, *shape))

    def _unit_rows(self, dtype: torch.dtype) -> _Rows:
        rows: list[Tensor] = []
        for gain, weights in zip((1.0, SILU_GAIN), self._of_one_shape(), strict=False):
            stacked = torch.stack(weights)
            rows += (stacked / (gain * stacked.norm(dim=-1, keepdim=True))).to(dtype).unbind()
        *hidden, last = rows
        return _Rows(hidden, last.T @ last)

    def _of_one_shape(self) -> list[list[Tensor]]:
        """The first layer's weights, and those of the others if there are any: stacked, they take fewer operations."""
        first, *others = self.weights
        return [[first], others] if others else [[first]]

    def _keep(self, x: Tensor) -> _Kept:
        """The rows in the dtype of ``x``, computed again only after the weights have changed or moved."""
        numbers = (*self._parameters_in_order, self.sigma_data)
        state = (x.dtype, self.gain.device, *(p._version for p in numbers), *(p.data_ptr() for p in numbers))
        if self._kept is None or self._kept.state != state:
            with torch.no_grad():
                self._kept = _Kept(state, self._unit_rows(x.dtype), {})
        return self._kept

    def _shared_level(self, kept: _Kept, sigma: float, x: Tensor) -> _Level:
        """The level that all points share, in the dtype of ``x``."""
        levels, key = kept.levels, (sigma, self.label)
        if key not in levels:
            with torch.no_grad():
                levels[key] = self._level(as_sigma(sigma, x)[None], self.label_code.to(x)[None])
            if len(levels) > _LEVELS:
                levels.pop(next(iter(levels)))
        return levels[key]

    def _level(self, s: Tensor, code: Tensor) -> _Level:
        """s has shape (n, 1), code shape (n, label inputs)."""
        scale = (s.square() + self.sigma_data.to(s).square()).rsqrt()
        rest = torch.cat([s.log() / 4, torch.ones_like(s), code], -1)
        return _Level(scale, rest, self.g.to(s.dtype) / (s * self.width))

    def _energy(self, rows: _Rows, x: Tensor, level: _Level, kept: Tensor | None = None) -> Tensor:
        """G, with shape (n,); ``kept`` has shape (n, layers, width)."""
        h = _inputs(x, level)
        x_star = h[:, : self.dim]
        for i, row in enumerate(rows.hidden):
            h = functional.silu(h @ row.T)
            h = h if kept is None else h * kept[:, i]
        return level.strength[:, 0] * (h @ rows.square * h).sum(-1) - 0.5 * x_star.square().sum(-1)


@torch.no_grad()
def unit_rows(weights: list[Tensor]) -> None:
    """Scale every row of matrices of one shape to norm sqrt(inputs), in place."""
    rows = torch.stack(weights)
    rows.mul_(math.sqrt(rows.shape[-1]) / rows.norm(dim=-1, keepdim=True))
    torch._foreach_copy_(weights, rows.unbind())


def _gradient(scratch: Scratch, rows: _Rows, x: Tensor, level: _Level) -> Tensor:
    """The gradient of G at points of shape (n, d), with the same shape: through the layers and back."""
    h = inputs = _inputs(x, level)
    one, dim = inputs.new_ones(()), x.shape[-1]
    *planes, here, there = scratch.planes(len(x))
    into = scratch.into
    slopes: list[Tensor] = []  # of each SiLU: gate + h (1 - gate)
    for row, plane in zip(rows.hidden, planes, strict=True):
        a = torch.mm(h, row.T, out=here)
        gate = torch.sigmoid(a, out=plane)
        h = torch.mul(a, gate, out=into(a))
        slopes.append(torch.lerp(h, one, gate, out=into(gate)))
        here, there = there, here

    back = torch.mm(h, rows.square, out=here if rows.hidden else None)
    for row, slope in zip(rows.hidden[::-1], slopes[::-1], strict=True):
        first = row is rows.hidden[0]
        back = torch.mul(back, slope, out=into(back))
        back = torch.mm(back, row[:, :dim] if first else row, out=None if first else there)
        here, there = there, here
    return (2 * level.strength * back[:, :dim] - inputs[:, :dim]) * level.scale


def _derivatives(scratch: Scratch, rows: _Rows, x: Tensor, level: _Level, along: Tensor) -> Tensor:
    """The derivatives of the gradient of G at points of shape (n, d) along directions of shape (n, m, d), with their
    shape: as ``_gradient``, with each value followed, on a first axis of 1 + m, by its derivatives."""
    dim, scale = x.shape[-1], level.scale[:, None]
    inputs, turned = _inputs(x, level), along * scale
    turned = functional.pad(turned, (0, inputs.shape[1] - dim))  # (n, m, inputs)
    both = torch.cat([inputs[None], turned.movedim(1, 0)])  # (1 + m, n, inputs)
    *planes, here, there = scratch.planes(len(x))
    into = scratch.into
    slopes: list[Tensor] = []
    for row, plane in zip(rows.hidden, planes, strict=True):
        both = _times(both, row.mT, here)
        a, d_a = both[0], both[1:]
        gate = a.sigmoid()
        h = a * gate
        slope = gate + h * (1 - gate)
        bend = gate * (1 - gate) * (2 + a * (1 - 2 * gate))
        slopes.append(_stacked(slope, torch.mul(bend, d_a, out=None if plane is None else plane[1:]), plane))
        both = _stacked(h, torch.mul(slope, d_a, out=into(d_a)), into(both))
        here, there = there, here

    both = _times(both, rows.square, here if rows.hidden else None)
    both = torch.mul(both, 2 * level.strength, out=into(both))
    for row, slope in zip(rows.hidden[::-1], slopes[::-1], strict=True):
        first = row is rows.hidden[0]
        turned = torch.mul(both[1:], slope[0], out=into(both[1:]))
        turned = torch.addcmul(turned, both[0], slope[1:], out=into(turned))
        both = _stacked(both[0] * slope[0], turned, into(both))
        both = _times(both, row[:, :dim] if first else row, None if first else there)
        here, there = there, here
    return both[1:, :, :dim].movedim(0, 1) * scale - along * scale.square()


def _times(both: Tensor, matrix: Tensor, into: Tensor | None) -> Tensor:
    """Every row of (1 + m, n, inputs) times a matrix, as one product."""
    out = None if into is None else into.flatten(0, 1)
    return torch.mm(both.flatten(0, 1), matrix, out=out).unflatten(0, both.shape[:2])


def _stacked(value: Tensor, derivatives: Tensor, into: Tensor | None) -> Tensor:
    """Both on one axis, with shape (1 + m, n, width); in ``into``, if given, the derivatives are already."""
    if into is None:
        return torch.cat([value[None], derivatives])
    into[0].copy_(value)
    return into


def _inputs(x: Tensor, level: _Level) -> Tensor:
    """The inputs of F, x* first, with shape (n, inputs)."""
    return torch.cat([x * level.scale, level.rest.expand(len(x), -1)], -1)
