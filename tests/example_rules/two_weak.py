"""A rule with two weak fields: autoguidance away from the mean of both."""

from toyguide.guidance import Guided, PerTrajectory, Role, Rule


class TwoWeak(Rule):
    key = "two-weak"
    title = "Autoguidance with two weak models"
    family = "Several fields"
    formula = r"D = D_\mathrm{main} + (w-1)\,(D_\mathrm{main} - (D_\mathrm{weak} + D_\mathrm{weak2})/2)"
    source = "an example for the tests"
    summary = "Extrapolates from the mean of two weaker models through the main one."
    needs = ("main", "weak", Role("weak2", "weaker", "a second weaker model", partner="exact+noise:0.4"))
    unguided = {"w": 1.0}
    batchable = True

    w = PerTrajectory(3.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), doc="Guidance weight; 1 is unguided.")

    def guide(self, at, memory):
        main, weak, weak2 = at.denoised_each("main", "weak", "weak2")
        return Guided(main + (self.w - 1) * (main - (weak + weak2) / 2))
