"""Elucidated classifier guidance (EluCD): a step of fixed length up a classifier's tempered logits, before each solver
step.

    g = grad log( exp(t1 f_c) / sum_j exp(t2 f_j) )                       (f the logits; t1 = t2 = 1: of the posterior)
    x <- x + gamma_i |x| g / |g|,    gamma_i = gmax (1 - i/n + a sin(pi i/(n - 1))),    n noise levels, with 0

The authors divide g by its root mean square and multiply it by that of x, which is the same. They keep the first part
of gamma above 1e-5; that is left out, so that gmax = 0 is unguided. The formula lives in the noisy points x: the field
that is sampled is evaluated where the push has led. The push is made once per step, whatever the step's length, so the
whole of it grows with the number of steps.

With t2 = 0 only the logit of the class itself counts, the *joint* one: of the exact posterior that is
``log p(x, c; sigma)``, and g the score of the class. The authors' classifier is one of clean images. ``point`` says
whether the classifier is asked at the noisy points (``noisy``) or, as one of clean points, at the denoised ones
(``denoised``), where g is the gradient with respect to D.
"""

from __future__ import annotations

import math
from typing import Any

import param
import torch
from torch import Tensor

from toyguide.errors import InputError
from toyguide.guidance.base import Rule
from toyguide.guidance.evaluation import Evaluation, Guided

CLEAN = 0.002
"""The noise level at which a classifier of clean points is asked: the last one of the bundled datasets, EDM's."""


class ElucidatedClassifierGuidance(Rule):
    """See the module's docstring.

    A step costs one gradient of the classifier, one evaluation of its logits unless t2 = 0, and one of ``main`` before
    the push where ``point`` is ``denoised``.

    The push is a share of ``|x|``, so that the authors' gmax needs no scaling to other data; theirs is for 10 steps.
    """

    key = "elucd"
    title = "Elucidated classifier guidance"
    short = "EluCD"
    family = "Classifiers"
    formula = (
        r"x \leftarrow x + \gamma_i \lVert x\rVert \frac{g}{\lVert g\rVert}, \quad"
        r" g = \nabla\log\frac{e^{\tau_1 f_c}}{\sum_j e^{\tau_2 f_j}}, \quad"
        r" \gamma_i = g_\mathrm{max}\left(1 - \tfrac{i}{n} + a \sin\tfrac{\pi i}{n-1}\right), \quad D = D_\mathrm{main}"
    )
    source = "Ma et al., 2023, arXiv 2310.11311, and their code"
    summary = (
        "Pushes the points up the classifier's gradient, a fixed share of their length before each solver step; made "
        "for classifiers that know clean points only. With t2 = 0, the authors' setting, only the logit of the class "
        "counts: with the exact classifier a little of it removes outliers, more of it drops branches. With t2 = 1 it "
        "pushes as far where the class is certain already, off the data. gmax = 0 is unguided."
    )
    needs = ("main", "classifier")
    unguided = {"gmax": 0.0}
    off = {"gmax": 0.0, "a": 0.0, "t2": 0.0}
    equivariant = ("rotation",)  # the push is a share of the distance from the origin

    gmax = param.Number(
        0.004,
        bounds=(0.0, 1.0),
        softbounds=(0.0, 0.1),
        step=0.001,
        doc="Length of the first push, as a share of |x|; 0 is unguided.",
    )
    a = param.Number(0.3, bounds=(0.0, 10.0), softbounds=(0.0, 2.0), step=0.1, doc="More in the middle of the steps.")
    t1 = param.Number(1.0, bounds=(0.0, 100.0), softbounds=(0.0, 5.0), step=0.1, doc="Factor of the class's logit.")
    t2 = param.Number(
        0.0,
        bounds=(0.0, 100.0),
        softbounds=(0.0, 5.0),
        step=0.1,
        doc="Factor of all classes' logits; 0 leaves them out, 1 with t1 = 1 climbs the posterior.",
    )
    point: Any = param.Selector(
        default="noisy",
        objects=["noisy", "denoised"],
        doc="Where the classifier is asked: at the noisy points, or as one of clean points at the denoised ones.",
    )

    def before_step(self, at: Evaluation, memory: Any) -> tuple[Tensor, Any]:
        gamma = self.gamma(at.index, len(at.levels))
        if gamma == 0:
            return at.x, memory
        asked = at if self.point == "noisy" else at.moved(at.denoised(), CLEAN)
        g = self.gradient(asked)
        return at.x + gamma * at.x.norm(dim=-1, keepdim=True) * _unit(g), memory

    def guide(self, at: Evaluation, memory: Any) -> Guided:
        return Guided(at.denoised())

    def gamma(self, index: int, levels: int) -> float:
        """The length of the push before a step, as a share of |x|, in a run of so many noise levels."""
        return float(self.gmax * (1 - index / levels + self.a * math.sin(math.pi * index / (levels - 1))))

    def gradient(self, at: Evaluation) -> Tensor:
        """g, with shape ``(n, d)``."""
        if at.label is None:
            raise InputError("label: this rule climbs the probability of a class, expected a run of one class")
        labels = at.classes()
        own = at.x.new_zeros(len(at.x), len(labels))
        own[:, labels.index(at.label)] = self.t1
        return at.logits_vjp(own - self.t2 * torch.softmax(self.t2 * at.logits(), -1) if self.t2 else own)


def _unit(g: Tensor) -> Tensor:
    """Vectors of length 1; 0 where the classifier is flat. Scaled first, because squares of small numbers are 0."""
    largest = g.abs().amax(-1, keepdim=True)
    return torch.nn.functional.normalize(g / largest.clamp(min=torch.finfo(g.dtype).tiny), dim=-1)
