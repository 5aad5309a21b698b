"""A rule that derives a field from a network: away from the network without some of its hidden units."""

from toyguide.fields.degradations import DropoutField
from toyguide.guidance import Guided, PerTrajectory, Role, Rule


class Thinned(Rule):
    key = "thinned"
    title = "Away from the thinned network"
    family = "Inside the network"
    formula = r"D = D_\mathrm{main} + (w-1)\,(D_\mathrm{main} - D_\mathrm{thinned})"
    source = "an example for the tests, after S2-Guidance"
    summary = "Autoguidance whose weak model is the main network without a tenth of its hidden units."
    needs = (Role("main", "network", "the network that is sampled and thinned"),)
    unguided = {"w": 1.0}
    equivariant = ()

    w = PerTrajectory(2.0, bounds=(0.0, 30.0), softbounds=(0.0, 10.0), doc="Guidance weight; 1 is unguided.")

    def guide(self, at, memory):
        main = at.denoised()
        thinned = at.denoised_of(DropoutField(at.field(), 0.1, seed=at.index))
        return Guided(main + (self.w - 1) * (main - thinned))
