"""Rules and diffusers: its own guiders, its schedulers and its loop, against toyguide's rules and sampler."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import seeded

import toyguide as tg
from toyguide.bridge import COUNTERPARTS, equivalent, guider
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.guidance import Evaluation, Interval, Scene
from toyguide.guidance.evaluation import kept
from toyguide.samplers import sampler, trajectory

guiders = pytest.importorskip("diffusers.guiders")
diffusers = pytest.importorskip("diffusers")

W = torch.float64
LEVELS = (5.0, 2.0, 0.8, 0.3, 0.1, 0.0)
N = len(LEVELS) - 1
SHAPE = (3, 2, 4, 4)


# The counterparts, in float64, several steps of random predictions.


class Given:
    """A field that predicts what it is given."""

    evaluations = 1

    def __init__(self, denoised):
        self.value = denoised

    def denoise(self, x, sigma):
        return self.value


def walked(rule, x, denoised):
    """The guided denoiser of each step; ``denoised`` has both fields' at each step."""
    found, memory = [], None
    for i, sigma in enumerate(LEVELS[:-1]):
        fields = {role: Given(denoised[i][role != "main"].flatten(1)) for role in rule.needs}
        at = Evaluation(Scene(fields, LEVELS), x[i].flatten(1), sigma, i)
        memory = rule.begin(at, seeded(0))[1] if i == 0 else memory
        guided = rule.guide(at, memory)
        memory = kept(guided.memory, memory)
        found.append(guided.denoised.reshape(SHAPE))
    return found


def guided_there(made, predictions):
    """What a guider of diffusers makes of both predictions at each step."""
    found = []
    for i, pair in enumerate(predictions):
        made.set_state(step=i, num_inference_steps=N, timestep=torch.tensor(N - i))
        batches = made.prepare_inputs({"embeds": (torch.zeros(1), torch.ones(1))})
        for batch, prediction in zip(batches, pair, strict=False):
            batch.noise_pred = prediction
        found.append(made(batches)[0])
    return found


AS = {
    "sample": lambda denoised, x, sigma: denoised,
    "epsilon": lambda denoised, x, sigma: (x - denoised) / sigma,
    "flow": lambda denoised, x, sigma: (x - denoised) / sigma - denoised,
}
NATURAL = {
    "cfg": "epsilon",
    "autoguidance": "epsilon",
    "apg": "sample",
    "cfg-zero-star": "flow",
    "raag": "flow",
    "tcfg": "epsilon",
}


def apart(rule, space):
    """The largest difference of a rule and its counterpart at any step, of predictions of size 1."""
    g = seeded(3)
    x = [torch.randn(SHAPE, generator=g, dtype=W) * math.hypot(1, sigma) for sigma in LEVELS[:-1]]
    main = [torch.randn(SHAPE, generator=g, dtype=W) for _ in x]
    denoised = [(m, m + 0.5 * torch.randn(SHAPE, generator=g, dtype=W)) for m in main]
    name, arguments = equivalent(rule, LEVELS)
    layers = {"auto_guidance_layers": [0], "dropout": 0.5} if name == "AutoGuidance" else {}
    here = [AS[space](d, *at) for d, *at in zip(walked(rule, x, denoised), x, LEVELS, strict=False)]
    both = [[AS[space](d, *at).flatten(2) for d in pair] for pair, *at in zip(denoised, x, LEVELS, strict=False)]
    made = getattr(guiders, name)(**arguments, **layers)
    with pytest.MonkeyPatch.context() as patch:  # CFG-Zero* and TCFG compute in float32 otherwise
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        there = [b.reshape(SHAPE) for b in guided_there(made, both)]
    return max(float((a - b).abs().max() / (1 + b.abs().max())) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *((key, {}) for key in COUNTERPARTS),
        *((key, {"w": w}) for key in COUNTERPARTS for w in (0.0, 1.0, 2.5)),
        ("apg", {"eta": 0.3, "beta": 0.4, "r": 2.0}),
        ("apg", {"r": math.inf}),
        ("apg", {"r": 0.0}),
        ("cfg-zero-star", {"K": 0}),
        ("cfg-zero-star", {"K": 3}),
        ("raag", {"alpha": 0.5}),
    ],
)
def test_each_counterpart_computes_the_rule(key, values):
    rule = tg.rule(key, **values)
    assert apart(rule, NATURAL[key]) < 1e-9


@pytest.mark.parametrize("key", COUNTERPARTS)
def test_so_does_it_in_an_interval(key):
    bare = tg.rule(key, **({"K": 0} if key == "cfg-zero-star" else {}))
    rule = Interval(bare, 0.2, 1.0)  # the steps 2 and 3 of 5
    assert equivalent(rule, LEVELS)[1].items() >= {"start": 0.4, "stop": 0.8}.items()
    assert apart(rule, NATURAL[key]) < 1e-9


@pytest.mark.parametrize("space", AS)
@pytest.mark.parametrize("key", COUNTERPARTS)
def test_where_they_are_said_to_agree_and_nowhere_else(key, space):
    every = COUNTERPARTS[key].agrees == COUNTERPARTS["cfg"].agrees
    distance = apart(tg.rule(key, **({"K": 0} if key == "cfg-zero-star" else {})), space)
    assert distance < 1e-9 if every or space == NATURAL[key] else distance > 0.01


def test_the_norm_of_raag_fails_on_images_there():
    """As the counterpart says; where this passes no more, the sentence can go."""
    image = torch.ones(1, 2, 3, 3)
    with pytest.raises(RuntimeError, match="2-tuple"):
        guiders.MagnitudeAwareGuidance(10.0).forward(image, 2 * image)
    assert "(n, tokens, channels)" in COUNTERPARTS["raag"].agrees


def test_an_interval_is_counted_in_steps():
    for n in (1, 2, 7, 29, 50, 100):
        levels = [float(n - i) for i in range(n)]  # the step i is at n - i
        for first in range(n):
            for end in range(first + 1, n + 1):
                rule = Interval(tg.rule("cfg"), n - end + 0.5, n - first + 0.5)
                _, arguments = equivalent(rule, [*levels, 0.0])
                assert (int(arguments["start"] * n), int(arguments["stop"] * n)) == (first, end)
                assert 0 <= arguments["start"] < 1
                assert arguments["stop"] <= 1
    assert equivalent(Interval(tg.rule("cfg"), 10.0, 20.0), LEVELS)[1].items() >= {"start": 0.0, "stop": 0.0}.items()


@pytest.mark.parametrize(
    ("rule", "levels", "complaint"),
    [
        (tg.rule("sfg"), (), "rule 'sfg': diffusers has no guider for it, expected one of cfg, autoguidance"),
        (Interval(tg.rule("smc-cfg"), 0.1, 1.0), LEVELS, "rule 'smc-cfg': diffusers has no guider"),
        (Interval(tg.rule("cfg"), 0.1, 1.0), (), "levels: an interval needs the noise level of each step"),
        (Interval(tg.rule("cfg"), 0.1, 1.0), (1.0, 2.0, 0.0), "expected falling positive numbers"),
        (Interval(tg.rule("cfg-zero-star"), 0.1, 1.0), LEVELS, "K: .* expected K = 0"),
    ],
)
def test_what_has_no_counterpart(rule, levels, complaint):
    with pytest.raises(InputError, match=complaint):
        equivalent(rule, levels)


# A pipeline: the documented loop of a guider, with a small random network.


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = diffusers.UNet2DConditionModel(
            sample_size=4,
            in_channels=2,
            out_channels=2,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            layers_per_block=1,
            norm_num_groups=2,
            cross_attention_dim=4,
            attention_head_dim=4,
        )
    return made.double().eval().requires_grad_(False)


UNET, WEAK = network(0), network(1)
EMBEDS = torch.randn(1, 3, 4, generator=seeded(1), dtype=W).expand(SHAPE[0], -1, -1)
NOISE = torch.randn(SHAPE, generator=seeded(2), dtype=W)
STEPS = 6


def scheduler(kind="ddim", prediction="epsilon"):
    if kind == "flow":
        made = diffusers.FlowMatchEulerDiscreteScheduler()
    elif kind == "euler":
        made = diffusers.EulerDiscreteScheduler(prediction_type=prediction)
    else:
        cls = diffusers.DDIMScheduler if kind == "ddim" else diffusers.DDPMScheduler
        made = cls(prediction_type=prediction, clip_sample=False)
    made.set_timesteps(STEPS)
    return made


def pipeline(made, schedule, rows=slice(None)):
    """The latents that the loop of a modular pipeline ends on."""
    z = NOISE[rows] * getattr(schedule, "init_noise_sigma", 1.0)
    for i, t in enumerate(schedule.timesteps):
        seen = schedule.scale_model_input(z, t) if hasattr(schedule, "scale_model_input") else z
        made.set_state(step=i, num_inference_steps=len(schedule.timesteps), timestep=t)
        batches = made.prepare_inputs({"embeds": (EMBEDS[rows], torch.zeros_like(EMBEDS[rows]))})
        for batch in batches:
            made.prepare_models(UNET)
            batch.noise_pred = UNET(seen.to(W), t, encoder_hidden_states=batch.embeds, return_dict=False)[0]
            made.cleanup_models(UNET)
        z = schedule.step(made(batches)[0], t, z, return_dict=False)[0]
    return z


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [(kind, p) for kind in ("ddim", "euler") for p in ("epsilon", "sample", "v_prediction")] + [("flow", "flow")],
)
def test_cfg_through_the_guider_is_that_of_diffusers(kind, prediction):
    schedule = scheduler(kind, prediction)
    here = pipeline(guider(tg.rule("cfg", w=3.0), schedule), schedule)
    there = pipeline(guiders.ClassifierFreeGuidance(3.0), scheduler(kind, prediction))
    plain = pipeline(guiders.ClassifierFreeGuidance(1.0), scheduler(kind, prediction))
    assert (there - plain).abs().max() > 1e-2 * there.std()
    torch.testing.assert_close(here, there, rtol=0, atol=2e-6 * float(there.abs().max()))


@pytest.mark.parametrize(
    ("key", "values", "kind", "prediction"),
    [
        ("apg", {"w": 3.0, "r": 0.5, "beta": 0.6}, "ddim", "sample"),
        ("apg", {"w": 3.0, "r": math.inf, "eta": 0.5}, "euler", "sample"),
        ("cfg-zero-star", {"w": 3.0, "K": 2}, "flow", "flow"),
        ("tcfg", {"w": 3.0}, "ddim", "epsilon"),
    ],
)
def test_so_are_the_other_rules_where_they_agree(key, values, kind, prediction):
    schedule, rule = scheduler(kind, prediction), tg.rule(key, **values)
    name, arguments = equivalent(rule)
    here = pipeline(guider(rule, schedule), schedule)
    there = pipeline(getattr(guiders, name)(**arguments), scheduler(kind, prediction))
    cfg = pipeline(guiders.ClassifierFreeGuidance(values["w"]), scheduler(kind, prediction))
    assert (there - cfg).abs().max() > 1e-3 * there.std()
    torch.testing.assert_close(here, there, rtol=0, atol=2e-5 * float(there.abs().max()))


def test_an_interval_in_sigma_is_one_in_steps():
    schedule = scheduler("euler")
    levels = schedule.sigmas.tolist()
    rule = Interval(tg.rule("cfg", w=3.0), levels[4], levels[2])
    assert equivalent(rule, levels)[1].items() >= {"start": 2 / 6, "stop": 4 / 6}.items()
    there = pipeline(guiders.ClassifierFreeGuidance(3.0, start=2 / 6, stop=4 / 6), scheduler("euler"))
    torch.testing.assert_close(
        pipeline(guider(rule, schedule), schedule), there, rtol=0, atol=2e-6 * float(there.abs().max())
    )


class OfNetwork:
    """A network that predicts noise as a field of toyguide, at the levels of a run."""

    evaluations = 1

    def __init__(self, net, embeds, timesteps):
        self.net, self.embeds, self.timesteps = net, embeds, timesteps

    def denoise(self, x, sigma):
        if not len(x):  # of a rule that asks for some points only
            return x
        z = (x / math.hypot(1, sigma)).reshape(-1, *SHAPE[1:])
        noise = self.net(z, self.timesteps[sigma], encoder_hidden_states=self.embeds[: len(x)], return_dict=False)[0]
        return x - sigma * noise.flatten(1)


@pytest.mark.parametrize(
    "rule",
    [
        tg.rule("cfg", w=2.0),
        tg.rule("apg", w=4.0, r=2.0, beta=-0.5),
        tg.rule("smc-cfg", w=3.0),
        tg.rule("adaptive-guidance", w=3.0, below=3.0, threshold=0.5),
        tg.rule("terminal-fitted", w=3.0),
        tg.rule("tsr", k=1.3),
        tg.rule("autoguidance", w=2.0),
        tg.rule("cfg+autoguidance", w=3.0),
        Interval(tg.rule("apg", w=4.0, r=2.0), 0.3, 3.0),
    ],
    ids=lambda rule: f"interval of {rule.rule.key}" if isinstance(rule, Interval) else rule.key,
)
def test_a_pipeline_is_a_run_of_toyguide(rule):
    """DDIM's step is Euler's in sigma: the same network in toyguide's own loop ends on the same points."""
    schedule = scheduler("ddim")
    kept = schedule.alphas_cumprod.double()[schedule.timesteps]
    levels = torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1, dtype=W)])
    steps = dict(zip(levels.tolist(), schedule.timesteps, strict=False))
    nothing = torch.zeros_like(EMBEDS)
    fields = {
        "main": OfNetwork(UNET, EMBEDS, steps),
        "uncond": OfNetwork(UNET, nothing, steps),
        "weak": OfNetwork(WEAK, EMBEDS, steps),
    }
    start = NOISE.flatten(1) / kept[0].sqrt()
    expected = list(trajectory(rule, fields, sampler("euler"), start, levels, seeded(0)))[-1].x
    weak = WEAK if "weak" in rule.evaluates() else None
    found = pipeline(guider(rule, schedule, weak=weak), schedule).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["ddim", "euler", "ddpm", "flow"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_schedulers_step_reads_the_prediction_as_the_denoiser(kind, prediction):
    """Told D in the model's own space, the scheduler lands on ``D + (sigma'/sigma)(x - D)``; DDPM names D itself."""
    from toyguide.bridge.predictions import noise_levels, prediction_of

    schedule = scheduler(kind, prediction)
    space = prediction_of(schedule)
    levels = noise_levels(schedule, schedule.timesteps[0], 0)
    x, denoised = NOISE * math.hypot(1, levels[2]), torch.randn(SHAPE, generator=seeded(5), dtype=W)
    told = space.from_denoised(denoised, x, levels[2])
    torch.testing.assert_close(space.to_denoised(told, x, levels[2]), denoised)
    state = x if kind == "euler" else x * space.scale(levels[2])
    t = schedule.timesteps[2]
    if hasattr(schedule, "scale_model_input"):
        seen = schedule.scale_model_input(state, t)
        torch.testing.assert_close(seen.to(W), x * space.scale(levels[2]), rtol=1e-6, atol=1e-6)
    done = schedule.step(told, t, state)
    if kind == "ddpm":
        torch.testing.assert_close(done.pred_original_sample, denoised, rtol=1e-5, atol=1e-5)
    else:
        landed = done.prev_sample.to(W) / (1 if kind == "euler" else space.scale(levels[3]))
        expected = denoised + levels[3] / levels[2] * (x - denoised)
        torch.testing.assert_close(landed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["apg", "smc-cfg", "raag", "adaptive-guidance"])
def test_each_sample_by_itself(key):
    schedule = scheduler("ddim")
    together = pipeline(guider(tg.rule(key), schedule), schedule)
    for i in range(len(NOISE)):
        schedule = scheduler("ddim")
        alone = pipeline(guider(tg.rule(key), schedule), schedule, slice(i, i + 1))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-9)


def test_a_guider_leaves_nothing_behind():
    schedule = scheduler("ddim")
    made = guider(tg.rule("apg", beta=0.5, r=2.0), schedule)
    first = pipeline(made, schedule)
    assert not UNET._forward_pre_hooks
    assert torch.equal(pipeline(made, schedule), first)  # a new run, without the memory of the last one
    made.disable()
    assert made.num_conditions == 1
    plain = pipeline(guiders.ClassifierFreeGuidance(1.0), scheduler("ddim"))
    assert torch.equal(pipeline(made, schedule), plain)


class Called(torch.nn.Module):
    """The network with its input under another name, as a transformer has it, or by position, as ``""``."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, *args, **inputs):
        return UNET(args[0] if args else inputs[self.name], 5, encoder_hidden_states=EMBEDS).sample


@pytest.mark.parametrize("name", ["", "sample", "hidden_states"])
def test_the_models_input_is_found_by_its_names(name):
    schedule, net, seen = scheduler("ddim", "v_prediction"), Called(name), 0.5 * NOISE
    made = guider(tg.rule("tsr", k=2.0, t=math.inf), schedule)
    made.set_state(0, STEPS, schedule.timesteps[0])
    (batch,) = made.prepare_inputs({"embeds": (EMBEDS, None)})
    made.prepare_models(net)
    batch.noise_pred = net(**{name: seen}) if name else net(seen)
    made.cleanup_models(net)
    a, b = (float(share.sqrt()) for share in shares(schedule))  # z = a x0 + b n
    clean = a * seen - b * batch.noise_pred
    expected = (a * seen - (seen / a + 2 * (clean - seen / a))) / b
    torch.testing.assert_close(made([batch])[0], expected, rtol=1e-6, atol=1e-6)


def shares(schedule):
    """The shares of the data's and the noise's variance at the first step."""
    kept = schedule.alphas_cumprod.double()[schedule.timesteps[0]]
    return kept, 1 - kept


def test_a_run_that_starts_late_counts_its_own_steps():
    from toyguide.bridge.predictions import noise_levels

    schedule = scheduler("ddim")
    whole = noise_levels(schedule, schedule.timesteps[0], 0)
    assert noise_levels(schedule, schedule.timesteps[4], 1) == whole[3:]
    with pytest.raises(InputError, match="step 0 at timestep 3: expected a timestep that the scheduler has once"):
        noise_levels(schedule, 3, 0)


def test_where_a_flow_sees_noise_alone_nothing_is_lost():
    """Its first level is infinite: a finite one stands for it, and changes no prediction."""
    from toyguide.bridge.predictions import noise_levels, prediction_of

    schedule = scheduler("flow")
    sigma = noise_levels(schedule, schedule.timesteps[0], 0)[0]
    assert schedule.sigmas[0] == 1
    assert sigma > 1e5
    space, x = prediction_of(schedule), NOISE * (1 + sigma)
    velocity = torch.randn(SHAPE, generator=seeded(6), dtype=W)
    denoised = space.to_denoised(velocity, x, sigma)
    torch.testing.assert_close(denoised, NOISE - velocity, rtol=0, atol=1e-5)
    torch.testing.assert_close(space.from_denoised(denoised, x, sigma), velocity, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("sfg", "evaluates the model a second time in a step"),
        ("self-guidance", "evaluates the model a second time in a step"),
        ("cfg++", "adds back another noise"),
        ("cfg-mp", "moves the points before or after a step"),
        ("fkc", "its points affect each other"),
        ("svdd", "chooses among noisy steps"),
        ("autoguidance", r"needs a weaker model of the same distribution \(weak\), expected a denoiser as weak"),
        ("classifier", "needs the probabilities of the classes"),
        ("gfcg", "needs the probabilities of the classes"),
        ("dps", "asks for derivatives"),
        ("dynamic-cfg", "asks for a density"),
        ("recfg", "asks for the dataset"),
        ("s2-guidance", "which must be a trained network"),
    ],
)
def test_what_a_pipeline_cannot_carry_is_refused_by_name(key, reason):
    with pytest.raises(InputError, match=f"rule '{key}': cannot run in a pipeline, because it.* {reason}|{reason}"):
        guider(tg.rule(key), scheduler("ddim"))


def test_wrong_schedulers_and_models():
    with pytest.raises(InputError, match="unknown scheduler 'HeunDiscreteScheduler': expected one of EulerDiscrete"):
        guider(tg.rule("cfg"), diffusers.HeunDiscreteScheduler())
    with pytest.raises(InputError, match="unknown scheduler 'NoneType'"):
        guider(tg.rule("cfg"), None)
    schedule = scheduler("ddim")
    made = guider(tg.rule("cfg"), schedule)
    made.set_state(0, STEPS, schedule.timesteps[0])
    batches = made.prepare_inputs({"embeds": (EMBEDS, EMBEDS)})
    for batch in batches:
        made.prepare_models(UNET)
        UNET(NOISE, 1, encoder_hidden_states=EMBEDS)
        made.cleanup_models(UNET)
        batch.noise_pred = NOISE[:, :1]
    with pytest.raises(InputError, match=r"input of shape \(3, 2, 4, 4\): expected that of its output, \(3, 1, 4, 4\)"):
        made(batches)


# The command line.

WITHOUT = """
import sys
sys.modules["diffusers"] = None
from toyguide.cli import main
assert main(["rules", "cfg", "--diffusers"]) == 0
import toyguide as tg
from toyguide.bridge import guider
try:
    guider(tg.rule("cfg"), None)
except ValueError as problem:
    print(problem)
"""


def said(capsys, *argv):
    assert main(["rules", *argv]) == 0
    return capsys.readouterr().out


def test_the_command_line_writes_python(capsys):
    out = said(capsys, "apg", "--diffusers", "--set", "w=3", "--set", "r=inf")
    names = {}
    exec(out, names)
    assert type(names["guider"]) is guiders.AdaptiveProjectedGuidance
    assert names["guider"].config.items() >= equivalent(tg.rule("apg", w=3.0, r=math.inf))[1].items()
    assert 'prediction_type "sample"' in out

    out = said(capsys, "cfg", "--diffusers", "--interval", "0.2,1", "--levels", ",".join(map(str, LEVELS)))
    assert "ClassifierFreeGuidance(guidance_scale=4.0, start=0.4, stop=0.8)" in out
    assert "no counterpart of weak" in said(capsys, "autoguidance", "--diffusers")


def test_it_needs_no_diffusers():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ClassifierFreeGuidance(guidance_scale=4.0)" in done.stdout
    assert "a guider needs diffusers, which is not installed: expected pip install 'toyguide[bridge]'" in done.stdout


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["sfg", "--diffusers"], "rule 'sfg': diffusers has no guider for it"),
        (["--diffusers"], "are of one rule: expected its NAME"),
        (["--set", "w=3"], "are of one rule: expected its NAME"),
        (["cfg", "--interval", "0.1,1"], "expected --diffusers too"),
        (["cfg", "--diffusers", "--interval", "0.1,1"], "an interval needs the noise level of each step"),
        (["cfg", "--diffusers", "--levels", "high"], "'high': expected noise levels"),
        (["cfg", "--diffusers", "--set", "w=-1"], "cfg: w = -1: expected a number from 0.0 to 30.0"),
    ],
)
def test_wrong_command_lines(capsys, argv, complaint):
    assert main(["rules", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert complaint in err


# One rule in full: what its class says, and what a run of it costs.


def test_a_rule_in_full(capsys):
    out = said(capsys, "apg")
    apg = tg.rules()["apg"]
    shown = " ".join(out.split())
    for text in (apg.title, apg.summary, apg.formula, apg.source, "uncond: what CFG-like rules extrapolate from"):
        assert " ".join(text.split()) in shown
    assert "r = 0.05 (a number from 0.0, or inf; inf is off): The largest difference" in shown
    assert "eta = 1.0, beta = 0.0, r = inf: cfg with the same w" in shown
    assert "the field of main as uncond: none" in shown
    assert "unguided at w = 1.0" in shown
    assert "evaluations in a step of euler: 2, gradients: 0" in shown


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["none"], "evaluations in a step of euler: 1, gradients: 0"),
        (["cfg-zero-star"], "euler: 1.6, gradients: 0"),  # the first of five steps evaluates nothing
        (["cfg-zero-star", "--set", "K=0"], "euler: 2, gradients: 0"),
        (["cfg++"], "needs a first-order sampler"),
        (["fkc"], "in a step of ancestral: 3, gradients: 0; needs a stochastic sampler; its points affect each other"),
        (["dps"], "euler: 1, gradients: 1"),
        (["cfg"], "can run in a pipeline of diffusers"),
        (["autoguidance"], "can run in a pipeline of diffusers that has the weak one"),
        (["dps"], "cannot run in a pipeline, because it asks for derivatives of the model"),
        (["terminal-fitted"], "w = 1000.0: cfg++ with lam = 1.0, under euler"),
    ],
)
def test_what_a_rule_asks_of_a_run(capsys, argv, expected):
    assert expected in " ".join(said(capsys, *argv).split())


def test_every_rule_can_be_shown(capsys):
    for key, cls in tg.rules().items():
        assert said(capsys, key).startswith(f"{key}: {cls.title}")


# The page that says all this.

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "pipelines.md").read_text(encoding="utf-8")


def test_the_page_shows_what_the_command_line_says(capsys):
    shown = re.findall(r"```\n\$ toyguide rules (.*)\n([^`]*)```", PAGE)
    assert len(shown) == 2
    for argv, expected in shown:
        assert said(capsys, *argv.split()) == expected


def test_the_pages_table_is_that_of_the_counterparts():
    assert re.findall(r"^\| `(.*?)` \| `(.*?)`", PAGE, re.MULTILINE) == [(k, c.guider) for k, c in COUNTERPARTS.items()]


def test_the_pages_python_names_what_there_is():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made = next(line for line in code.splitlines() if line.startswith("rule = "))
    names = {"tg": tg, "Interval": Interval}
    exec(made, names)
    schedule = scheduler("euler")
    assert torch.isfinite(pipeline(guider(names["rule"], schedule), schedule)).all()
    assert hasattr(diffusers, "ModularPipeline")
    assert len(code.splitlines()) <= 15
