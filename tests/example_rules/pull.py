"""A rule with a gradient through the denoiser: down a loss of the denoised points."""

from toyguide.guidance import Guided, PerTrajectory, Rule


class Pull(Rule):
    key = "pull"
    title = "Pull to the origin"
    family = "Rewards and particles"
    formula = r"D = D_\mathrm{main} - \zeta\,\sigma^2\,\nabla_x \lVert D_\mathrm{main}(x)\rVert^2 / 2"
    source = "an example for the tests, after DPS"
    summary = "Draws the denoised points to the origin."
    unguided = {"zeta": 0.0}
    equivariant = ("rotation",)
    batchable = True

    zeta = PerTrajectory(1.0, bounds=(0.0, 100.0), softbounds=(0.0, 10.0), doc="Strength; 0 is unguided.")

    def guide(self, at, memory):
        denoised = at.denoised()
        return Guided(denoised - self.zeta * at.sigma**2 * at.vjp(denoised))
