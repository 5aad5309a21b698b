"""A classifier rule: the main field and the gradient of a class's probability."""

from toyguide.guidance import Guided, PerTrajectory, Rule


class Ascent(Rule):
    key = "ascent"
    title = "Classifier ascent"
    family = "Classifiers"
    formula = r"D = D_\mathrm{main} + (w-1)\,\sigma^2\,\nabla\log p(c \mid x)"
    source = "an example for the tests"
    summary = "Climbs the probability of the class. With the exact classifier of exact fields it is CFG."
    needs = ("main", "classifier")
    unguided = {"w": 1.0}
    batchable = True

    w = PerTrajectory(3.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), doc="Guidance weight; 1 is unguided.")

    def guide(self, at, memory):
        gradient = at.posterior_gradient(at.label)
        return Guided(at.denoised() + (self.w - 1) * at.sigma**2 * gradient)
