"""Rules that are typed: against the rules they write down and against NumPy, mistakes at their places, and attacks."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import seeded
from walks import FIELDS, W, X, walk

import toyguide as tg
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.guidance import Batched, Evaluation, rules
from toyguide.guidance.formula import FUNCTIONS, LONGEST, VARIABLES, FormulaError, as_rule_file, parse
from toyguide.guidance.formula.vocabulary import FIELDS as NAMES
from toyguide.guidance.rules import formula as module
from toyguide.sweeps.batch import batches

CFG = "w = 3 [0, 10]; D_main + (w - 1) * (D_main - D_uncond)"
AUTO = "w = 3 [0, 10]; D_main + (w - 1) * (D_main - D_weak)"
BOTH = """
    w = 3 [0, 10]; mix = 0.5 [0, 1];
    D_main + (w - 1) * ((1 - mix) * (D_main - D_uncond) + mix * (D_main - D_weak))
"""
APG = """
    w = 3 [0, 10]; eta = 0 [0, 1]; r = 0.3 [0.01, 5];
    g = D_main - D_uncond;
    c = g * min(1, r / norm(g));
    D_main + (w - 1) * (perp(c, D_main) + eta * (c - perp(c, D_main)))
"""
GATED = "w = 3 [0, 10]; low = 0.2; high = 1.6; D_main + (w - 1) * (D_main - D_weak) * (low < sigma <= high)"


def typed(expression: str, **params) -> tg.Rule:
    return tg.rule("formula", expression=expression, **params)


def denoised(expression: str, sigma: float = 0.7, x=X, levels=(0.7, 0.0), index: int = 0, **params) -> torch.Tensor:
    at = Evaluation(tg.guidance.Scene(FIELDS, levels), x, sigma, index)
    return typed(expression, **params).guide(at, None).denoised


def number(expression: str, **settings) -> float:
    """The value of a number, times x."""
    found = denoised(f"({expression}) * x", **settings) / X
    assert float(found.max() - found.min()) < 1e-12 or not found.isfinite().any()
    return float(found[0, 0])


# What is typed is what it says


@pytest.mark.parametrize(
    ("expression", "params", "key", "same"),
    [
        (CFG, {"w": 2.7}, "cfg", {"w": 2.7}),
        (AUTO, {"w": 2.7}, "autoguidance", {"w": 2.7}),
        (BOTH, {"w": 3.0, "mix": 0.25}, "cfg+autoguidance", {"w": 3.0, "mix": 0.25}),
        ("k = 1.4; x + k * (D_main - x)", {}, "score-scaling", {"k": 1.4}),
        ("k = 1.4; x + sigma**2 * k * s_main", {}, "score-scaling", {"k": 1.4}),
        ("k = 1.4; x - sigma * k * eps_main", {}, "score-scaling", {"k": 1.4}),
        ("w = 3; v = v_main + (w - 1) * (v_main - v_uncond); (x - sigma * v) / (1 + sigma)", {}, "cfg", {"w": 3.0}),
        (APG, {"w": 3.5, "eta": 0.3, "r": 0.2}, "apg", {"w": 3.5, "eta": 0.3, "r": 0.2, "beta": 0.0}),
        ("D_main", {}, "none", {}),
    ],
)
def test_a_typed_rule_is_the_rule_it_writes_down(expression, params, key, same):
    """On a whole walk, with as many evaluations."""
    mine, theirs = walk(typed(expression, **params)), walk(tg.rule(key, **same))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-12)
        assert a.nfe == b.nfe


def test_an_interval_is_typed():
    gated, limited = walk(typed(GATED), method="euler"), tg.guidance.Interval(tg.rule("autoguidance", w=3.0), 0.2, 1.6)
    for a, b in zip(gated, walk(limited, method="euler"), strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-12)


def test_projected_guidance_is_typed():
    """By NumPy, point by point: the difference is cut to length r, and its part along D_main weighted with eta."""
    w, eta, r = 4.0, 0.25, 0.2
    main, uncond = (FIELDS[role].denoise(X, 0.7).numpy() for role in ("main", "uncond"))
    expected = []
    for d, u in zip(main, uncond, strict=True):
        g = d - u
        g = g * r / np.linalg.norm(g) if np.linalg.norm(g) > r else g
        direction = d / np.linalg.norm(d)
        along = direction * (g @ direction)
        expected.append(d + (w - 1) * (g - along + eta * along))
    found = denoised(APG, w=w, eta=eta, r=r)
    np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=0, atol=1e-12)
    full = denoised(APG, w=w, eta=1.0, r=5.0)
    torch.testing.assert_close(full, denoised(CFG, w=w), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2 + 3 * 4 - 5 / 8", 13.375),
        ("-2 ** 2", -4.0),
        ("2 ** -0.5", 2**-0.5),
        ("+sigma - -sigma", 1.4),
        ("step + 10 * steps", 31.0),
        ("exp(sigma) + log(sigma)", np.exp(0.7) + np.log(0.7)),
        ("sqrt(sigma) + tanh(sigma)", np.sqrt(0.7) + np.tanh(0.7)),
        ("sin(sigma) * cos(sigma)", np.sin(0.7) * np.cos(0.7)),
        ("abs(sigma - 1)", 0.3),
        ("min(sigma, 0.1) + max(sigma, 0.1)", 0.8),
        ("clip(sigma, 0, 0.5) + clip(sigma, 1, 2) + clip(sigma, 0, 2)", 2.2),
        ("where(sigma < 1, 5, 6) + where(sigma > 1, 50, 60)", 65.0),
        ("(0.5 < sigma < 1) + 2 * (0.5 < sigma < 0.6) + 4 * (sigma == 0.7) + 8 * (sigma != 0.7)", 5.0),
        ("(sigma <= 0.7) * (sigma >= 0.7) * 0.1", 0.1),
        ("1 - (sigma < 1)", 0.0),
        ("-(sigma < 1)", -1.0),
        ("1 / 0", np.inf),
        ("(sigma - sigma) / 0", np.nan),
        ("9 ** 9 ** 9", np.inf),
        ("(-8) ** (1/3)", np.nan),
        ("exp(1e9)", np.inf),
        ("log(-1)", np.nan),
    ],
)
def test_numbers_are_what_they_are_elsewhere(expression, expected):
    levels = (2.0, 0.7, 0.1, 0.0)
    assert number(expression, levels=levels, index=1) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_vectors_are_what_they_are_elsewhere():
    main, weak, x = FIELDS["main"].denoise(X, 0.7).numpy(), FIELDS["weak"].denoise(X, 0.7).numpy(), X.numpy()
    lengths = np.sqrt((main**2).sum(-1, keepdims=True))
    inner = np.einsum("nd,nd->n", main, weak)[:, None]
    for expression, expected in {
        "norm(D_main) * x": lengths * x,
        "dot(D_main, D_weak) * x": inner * x,
        "unit(D_main)": main / lengths,
        "perp(D_weak, D_main)": weak - inner / lengths**2 * main,
        "where(norm(D_main) < 0.5, D_main, D_weak)": np.where(lengths < 0.5, main, weak),
        "x * (norm(D_main) < 0.5) * 0.1": np.where(lengths < 0.5, 0.1 * x, 0),
        "(norm(D_main) < 0.5) * 0.1 * x": np.where(lengths < 0.5, 0.1 * x, 0),
        "clip(x, -0.5, 0.5)": np.clip(x, -0.5, 0.5),
        "max(x, D_main) + min(x, D_main)": x + main,
        "abs(x) + tanh(x)": np.abs(x) + np.tanh(x),
        "eps_weak": (x - weak) / 0.7,
        "s_weak": (weak - x) / 0.49,
        "v_weak": (x - weak) / 0.7 - weak,
        "unit(0 * x)": 0 * x,
        "x / 2 - (-x)": 1.5 * x,
    }.items():
        np.testing.assert_allclose(denoised(expression).numpy(), expected, rtol=0, atol=1e-12, err_msg=expression)
    assert {name for name in FUNCTIONS if f"{name}(" in Path(__file__).read_text()} == set(FUNCTIONS)


EVERYWHERE = [
    GATED,
    "a = 1; b = 2; c = 3; D_main + exp(-a) * where(a < b, c / b, a ** c) * x",
    "a = 1; D_main + (sigma < a) * 0.1 * unit(x) + clip(norm(x), 0, a) * x",
    "a = 1 [0.5, 2]; c = where(a > 1, 0.1, 0.7); min(a, c) * x + max(x, a) * (a > 0.7) * (sigma < a) + log(a) / a * x",
    "a = 2; where(norm(x) > a, D_main, D_weak) * (1 - (a > 1))",
    APG,
    BOTH,
]


@pytest.mark.parametrize("dtype", [torch.float32, W])
@pytest.mark.parametrize("expression", EVERYWHERE)
def test_a_batch_is_its_runs(expression, dtype):
    """A parameter that is a column, wherever it occurs, against one that is a number."""
    x, tolerance = X.to(dtype), 1e-12 if dtype == W else 2e-5
    for p in parse(expression).parameters:
        singles = [typed(expression, **{p.name: p.low + share * (p.high - p.low)}) for share in (0.1, 0.4, 0.9)]
        joint = Batched(singles, [seeded()] * 3, x.repeat(3, 1))
        for sigma in (0.3, 1.0, 3.0):
            found = joint.guide(Evaluation(FIELDS, x.repeat(3, 1), sigma), None).denoised
            assert found.dtype == dtype
            for part, rule in zip(found.chunk(3), singles, strict=True):
                alone = rule.guide(Evaluation(FIELDS, x, sigma), None).denoised
                torch.testing.assert_close(part, alone, rtol=tolerance, atol=tolerance)


# A rule as a value


def test_a_formula_has_the_parameters_that_it_declares():
    rule = typed("w = 3 [0, 10]; s = -0.5 [-1, 1]; free = 2; D_weak + w * s * free * x", w=2)
    assert rule.values() == {"expression": rule.expression, "w": 2.0, "s": -0.5, "free": 2.0}
    assert [rule.declared()[name].bounds for name in ("w", "s", "free")] == [(0, 10), (-1, 1), (0, 10)]
    assert rule.needs == ("weak",)
    assert rule.per_trajectory() == ("w", "s", "free")
    assert rule.changed() == {"expression": rule.expression, "w": 2.0}
    assert tg.rule("formula").changed() == {}
    assert tg.rule("formula", w=2).changed() == {"w": 2.0}
    assert list(rules()["formula"].declared()) == ["expression", "w"]
    with pytest.raises(InputError, match=r"formula: w = 11: expected a number from 0\.0 to 10\.0"):
        typed(CFG, w=11)
    with pytest.raises(InputError, match=r"unknown parameter of formula 'q': expected one of expression, w"):
        typed(CFG, q=1)
    with pytest.raises(InputError, match=r"formula: expression = 3: expected a text like 'w = 3 \[0, 10\];"):
        tg.rule("formula", expression=3)


def test_equal_texts_and_numbers_are_equal_rules():
    first = typed(AUTO, w=2)
    module._class_of.cache_clear()
    again = typed(AUTO, w=2)
    assert type(first) is not type(again)
    assert first == again == type(first)(expression=AUTO, w=2)
    assert hash(first) == hash(again)
    assert len({first, again, typed(AUTO), typed(CFG, w=2), tg.rule("cfg", w=2)}) == 4
    assert type(first)(expression=CFG) == typed(CFG)
    assert type(first)() == typed(AUTO)
    assert rules()["formula"] is module.Formula
    assert module.Formula.declared().keys() == {"expression", "w"}


def test_experiments_with_a_formula_are_written_read_and_batched():
    def experiment(w: float, expression: str = AUTO) -> tg.Experiment:
        params = {"expression": expression, "w": w}
        return tg.Experiment("two-gaussians", "left", "exact", rule="formula", params=params, n=64, steps=4)

    e = experiment(2.5)
    assert tg.Experiment.from_json(e.to_json()) == e != experiment(2.0)
    assert e.roles().keys() == {"main", "weak"}
    assert [len(b) for b in batches([experiment(1.5), e, experiment(2.5, CFG)])] == [2, 1]
    built_in = tg.Experiment("two-gaussians", "left", "exact", rule="autoguidance", params={"w": 2.5}, n=64, steps=4)
    torch.testing.assert_close(e.run("cpu").x, built_in.run("cpu").x, rtol=0, atol=1e-5)


# Mistakes


@pytest.mark.parametrize(
    ("text", "at", "length", "complaint"),
    [
        ("D_main + (w - 1) * x", 10, 1, r"unknown name 'w', expected one of D_main, .* steps"),
        ("w = 3; D_main + (w - 1) * D_wek", 26, 5, "unknown name 'D_wek', did you mean 'D_weak'"),
        ("w = 3;\n D_main\n + D_wek * w", 18, 5, "did you mean 'D_weak'"),
        ("nrm(x) * x", 0, 3, "unknown function 'nrm', did you mean 'norm'"),
        ("norm * x", 0, 4, r"the function 'norm' without its arguments, expected norm\(a\)"),
        ("dot(x) * x", 0, 6, r"expected dot\(a, b\)"),
        ("dot(x, b=x) * x", 0, 11, r"expected dot\(a, b\)"),
        ("x(x)", 0, 1, "unknown function 'x'"),
        ("D_main * D_weak", 0, 15, r"two vectors have no product here, expected dot\(a, b\)"),
        ("D_main + 1", 0, 10, "a vector and a number have no sum"),
        ("D_main ** 2", 0, 6, "a vector has no powers"),
        ("x / D_main", 4, 6, "expected a number here, not a vector"),
        ("2 ** x * x", 5, 1, "expected a number here, not a vector"),
        ("norm(3) * x", 5, 1, "norm takes a vector here, not a number"),
        ("clip(x, x, 1)", 8, 1, "clip takes a number here, not a vector"),
        ("where(3, x, x)", 6, 1, "where takes a condition here, not a number"),
        ("where(sigma < 1, x, 1)", 0, 22, "two of a kind"),
        ("x * (x < 1)", 5, 1, "vectors are not compared"),
        ("x * (1 < norm(x) < 2)", 9, 7, "expected a name between two comparisons"),
        ("norm(x)", 0, 7, "the result is a number, expected a vector"),
        ("sigma < 1", 0, 9, "the result is a condition, expected a vector"),
        ("", 0, 0, "expected an expression"),
        ("w = 3;", 6, 0, "expected an expression"),
        ("w = ; x", 4, 1, "expected an expression"),
        ("; x", 0, 1, "expected NAME = VALUE before a semicolon"),
        ("x + x; x", 0, 5, "expected NAME = VALUE before a semicolon"),
        ("3 = 4; x", 0, 5, "expected NAME = VALUE before a semicolon"),
        ("y = x", 0, 3, "expected the guided denoiser after the last semicolon"),
        ("w = 3 [0, 2]; w * x", 4, 1, r"3 is out of the range \[0, 2\]"),
        ("w = 30; w * x", 4, 2, r"30 is out of the range \[0, 10\]"),
        ("w = 3 [0]; w * x", 7, 1, "expected a range of two numbers"),
        ("w = 3 [4, 2]; w * x", 7, 4, "expected a range of two numbers"),
        ("w = 3 [0, sigma]; w * x", 7, 8, "expected a range of two numbers"),
        ("w = sigma [0, 1]; w * x", 4, 5, "expected a number before the range"),
        ("w = 3 [0 10]; w * x", 7, 4, "an operator or a comma is missing in this"),
        ("x + (x x)", 5, 3, "an operator or a comma is missing in this"),
        ("w = -3 [-2, 2]; w * x", 4, 10, r"-3 is out of the range \[-2, 2\]"),
        ("w = 3 [0, 10; w * x", 6, 1, "never closed"),
        ("x[0]", 0, 4, "expected a range after a parameter's number only"),
        ("w = 3; w = 4; w * x", 7, 1, "'w' is declared twice"),
        ("w = 3; x", 0, 1, "'w' is not used"),
        ("g = x; x", 0, 1, "'g' is not used"),
        ("g = h; h = x; g", 4, 1, "unknown name 'h'"),
        ("sigma = 3; sigma * x", 0, 5, "the name 'sigma' is taken"),
        ("D_weak = x; D_weak", 0, 6, "the name 'D_weak' is taken"),
        ("norm = 3; norm * x", 0, 4, "the name 'norm' is taken"),
        ("title = 3; title * x", 0, 5, "the name 'title' is taken"),
        ("expression = 3; expression * x", 0, 10, "the name 'expression' is taken"),
        ("lambda = 3; x", 0, 6, "the name 'lambda' is taken"),
        ("_w = 3; _w * x", 0, 2, "the name '_w' is taken"),
        (f"{'w' * 25} = 3; x", 0, 25, "a name of 25 characters, expected at most 24"),
        ("1e10 * x", 0, 4, r"expected a number up to 1e\+09"),
        ("1e999 * x", 0, 5, r"expected a number up to 1e\+09"),
        ("2x", 0, 2, "'2x' is not part of the language"),
        ("1.2.3 * x", 0, 5, "'1.2.3' is not part of the language"),
        ("D_main +", 8, 0, "something is missing at the end"),
        ("(x", 0, 1, "never closed"),
        ("x)", 1, 1, "unmatched"),
        ("x x", 2, 1, "this is not expected here"),
        ("x if sigma < 1 else x", 0, 21, r"expected where\(condition, a, b\)"),
        ("x * (sigma < 1 and sigma > 0)", 5, 23, "multiply conditions"),
        ("x * (not sigma < 1)", 5, 13, "expected the opposite comparison"),
        ("(x, x)", 0, 6, "a comma outside a function"),
        ("x * (sigma in sigma)", 5, 14, "this is not part of the language"),
        ("x * (sigma is sigma)", 5, 14, "this is not part of the language"),
        ("x // 2", 0, 6, "this is not part of the language"),
        ("True * x", 0, 4, "unknown name 'True'"),
    ],
)
def test_a_mistake_is_marked_at_its_place(text, at, length, complaint):
    with pytest.raises(FormulaError, match=complaint) as caught:
        parse(text)
    assert (caught.value.at, caught.value.length) == (at, length)
    assert str(caught.value).startswith(f"formula, character {at + 1}: ")
    assert f"→{text[at : at + length]}←" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_mistake_is_known():
    for text, expected in {
        "w = 3;\n D_main\n + D_wek * w\n + x": (" + ", "D_wek", " * w"),
        "D_main +": ("D_main +", "", ""),
        "D_wek": ("", "D_wek", ""),
    }.items():
        with pytest.raises(FormulaError) as caught:
            parse(text)
        assert caught.value.line == expected


# What must not be possible

ATTACKS = [
    "x.__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "__import__",
    "__import__(1)",
    "(lambda: x)()",
    "lambda y: y",
    "[y for y in x]",
    "{y for y in x}",
    "(y for y in x)",
    "[x]",
    "[*x]",
    "(y := x)",
    "f'{x}'",
    "'a'",
    '"""a"""',
    "b'a' * x",
    "r\\n",
    "x @ x",
    "x; import os",
    "y = x; import os; x",
    "x # comment",
    "x\x00",
    "\x00",
    "x\\",
    "print(x)",
    "eval(x)",
    "self",
    "self.param",
    "at",
    "memory",
    "torch",
    "float(1) * x",
    "len(x) * x",
    "number(1) * x",
    "Guided(x)",
    "norm.__globals__",
    "norm(*x) * x",
    "norm(**x) * x",
    "norm(x)(x)",
    "x if x else x",
    "await x",
    "(yield x)",
    "(yield from x)",
    "...",
    "None",
    "1j * x",
    "0x10 * x",
    "1_000 * x",
    "0777 * x",
    "1and x",
    "x | x",
    "~x",
    "x % 2",
    "x << 2",
    "$x",
    "ｘ",
    "х",
    "D_mаin",
    "norm(x)\u00a0* x",
    "x\u2028",
    "²",
    "\ud800",
    "١ * x",
    "x" * 100_000,
    "(" * 100_000,
    "-" * (LONGEST - 1) + "x",
    "(" * 450 + "x" + ")" * 450,
    "abs(" * 190 + "x" + ")" * 190,
    "x" + " + x" * 240,
    "**".join(["9"] * 300),
    "".join(f"a{i} = {i};" for i in range(9)) + "b = 1; c = 1; d = 1; e = 1; x",
    "[" * 999,
    ";" * 999,
    "=" * 999,
    "x" + ")" * 999,
]


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_attacks_are_refused_in_one_line(text, capsys):
    with pytest.raises(FormulaError) as caught:
        parse(text)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    assert line.isprintable()
    assert "".join(caught.value.line) in text
    assert capsys.readouterr() == ("", "")


def test_a_formula_reaches_nothing_else():
    """What a compiled formula may call, and that nothing else is in its scope."""
    scope = type(typed(APG)).guide.__globals__
    assert scope["__builtins__"] == {}
    assert set(scope) - {"__builtins__", "guide"} == {
        *("clip", "dot", "norm", "number", "perp", "unit", "where"),
        *("float", "len", "torch", "Guided"),
    }


WORDS_OF_PYTHON = r"""
    w g h 0 1 2.5 1e9 .5 3 9 ( ) ( ) ( ) + - * / ** < > <= == != , , ; ; = [ ] [0,10] w=3; g=x; . : _ é
    and or not if else lambda for in is await yield None True __class__ ' " \ # @ { } & | ~ := f(x) x.x
"""
WORDS = [
    *NAMES,
    *VARIABLES,
    *FUNCTIONS,
    *WORDS_OF_PYTHON.split(),
    *("\n", "\t"),
]


def sentence(chance: random.Random) -> str:
    """Words at random, or a formula that is mostly right with some words exchanged, dropped or doubled."""
    if chance.random() < 0.5:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))
    words = grown(chance, chance.randint(1, 5)).split(" ")
    for _ in range(chance.randint(0, 2)):
        i = chance.randrange(len(words))
        words[i : i + 1] = chance.choice([[], [chance.choice(WORDS)], [words[i], words[i]]])
        words = words or ["x"]
    return "w = 3 ; g = D_main - D_weak ; g * w + " + " ".join(words)


def grown(chance: random.Random, depth: int, kind: str = "vector") -> str:
    """A correct expression."""
    if depth == 0:
        return chance.choice(["x", "g", *NAMES] if kind == "vector" else ["w", "sigma", "step", "2.5", "0", "1e9"])
    v, u = (grown(chance, depth - 1, "vector") for _ in range(2))
    a, b = (grown(chance, depth - 1, "number") for _ in range(2))
    ways = {
        "vector": ["( v + u )", "( v - u )", "v * ( a )", "v / ( a )", "unit( v )", "perp( v , u )", "- v",
                   "clip( v , a , b )", "where( a < b , v , u )", "max( v , a )", "v * ( w < a )"],
        "number": ["( a + b )", "( a ) / ( b )", "( a ) ** ( b )", "norm( v )", "dot( v , u )", "exp( a )", "log( a )",
                   "where( a > b , a , b )", "min( a , b )", "( a < b ) * ( a )", "( 0 < w < a )", "sqrt( a )"],
    }[kind]  # fmt: skip
    named = {"v": v, "u": u, "a": a, "b": b}
    return " ".join(named.get(word, word) for word in chance.choice(ways).split(" "))


def outcome(text: str) -> tuple[tg.Rule | None, FormulaError | None]:
    try:
        return typed(text), None
    except FormulaError as problem:
        return None, problem


def test_no_text_raises_anything_else():
    """Texts at random are refused in one line, or run, as a number and as a column; with the numbers as they fall."""
    chance, right = random.Random(0), 0
    columns = torch.linspace(0, 10, len(X), dtype=W)[:, None]
    for _ in range(3000):
        text = sentence(chance)
        rule, problem = outcome(text)
        if rule is None:
            assert str(problem).isprintable(), text
            assert 0 <= problem.at <= len(text)
            continue
        right += 1
        assert sum(map(len, parse(text).body)) < 30 * (len(text) + 10), "what runs is as long as what is typed"
        for params in ({}, dict.fromkeys(rule.per_trajectory(), columns)):
            at = Evaluation(FIELDS, X, 0.7)
            found = typed(text, **params).guide(at, None).denoised
            assert found.shape == X.shape, text
            assert found.dtype == W, text
    assert 500 < right < 2500


# The command line

SMALL = ["--dataset", "two-gaussians", "--label", "left", "--main", "exact", "--n", "24", "--steps", "4"]


def test_a_formula_runs_on_the_command_line(tmp_path):
    runs = []
    for name, flags in {
        "typed": ["--rule", "formula", "--set", f"expression={AUTO}"],
        "built-in": ["--rule", "autoguidance"],
    }.items():
        file = tmp_path / f"{name}.npz"
        assert main(["sample", *SMALL, *flags, "--set", "w=2.5", "--device", "cpu", "-o", str(file)]) == 0
        runs.append(tg.Result.load(file))
    torch.testing.assert_close(runs[0].x, runs[1].x, rtol=0, atol=1e-5)
    assert runs[0].experiment.params == {"expression": AUTO, "w": 2.5}


def test_a_formula_is_swept(tmp_path):
    spec = tmp_path / "sweep.toml"
    spec.write_text(f"""
        [experiment]
        dataset = "two-gaussians"
        label = "left"
        main = "exact"
        n = 64
        steps = 4
        rule = "formula"
        params.expression = "{AUTO}"
        [grid]
        params.w = [1.0, 2.0, 3.0]
    """)
    assert main(["sweep", str(spec), "-o", str(tmp_path / "table.csv"), "--device", "cpu"]) == 0
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 4
    assert "params.w" in lines[0]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--set", "expression=w = 3; D_main + w * D_wek"], "character 21: unknown name 'D_wek', did you mean"),
        (["--set", "expression=D_main", "--set", "w=3"], "unknown parameter of formula 'w'"),
        (["--set", f"expression={CFG}", "--set", "w=30"], "w = 30: expected a number from 0.0 to 10.0"),
        (["--set", "expression=3"], "expression = 3: expected a text like"),
    ],
)
def test_a_wrong_formula_is_one_line_and_exit_code_2(more, complaint, tmp_path, capsys):
    assert main(["sample", *SMALL, "--rule", "formula", *more, "-o", str(tmp_path / "run.npz")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert complaint in err


# The rule file


def imported(text: str, path: Path):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("exported", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    (cls,) = (v for v in vars(found).values() if isinstance(v, type) and v.__module__ == "exported")
    return cls


LONG = "w = 3; D_main + " + " + ".join(["(w - 1) * perp(D_main - D_uncond, eps_weak) * exp(-w)"] * 5)
EXPORTED = [
    *(CFG, BOTH, LONG, *EVERYWHERE),
    "D_main",
    "s_main * sigma**2 + x",
    "D_main - D_main + eps_weak",
    "a_long_name_for_a_number = 123456789.125 [-999999999.125, 999999999.25]; a_long_name_for_a_number * x",
]


@pytest.fixture
def own_rules():
    """What is defined in a test is forgotten after it."""
    before = dict(tg.guidance.base.DEFINED)
    yield
    tg.guidance.base.DEFINED.clear()
    tg.guidance.base.DEFINED.update(before)


@pytest.mark.parametrize("expression", EXPORTED)
def test_an_exported_rule_is_the_formula(expression, tmp_path, own_rules):
    cls = imported(as_rule_file(expression, "my-rule"), tmp_path / "my_rule.py")
    assert (cls.key, cls.__name__) == ("my-rule", "MyRule")
    mine = typed(expression)
    assert cls.needs == mine.needs
    assert {k: v.bounds for k, v in cls.declared().items()} == {
        k: v.bounds for k, v in mine.declared().items() if k != "expression"
    }
    params = {p.name: p.low + 0.3 * (p.high - p.low) for p in parse(expression).parameters}
    for a, b in zip(walk(cls(**params)), walk(typed(expression, **params)), strict=True):
        assert torch.equal(a.x, b.x) or not a.x.isfinite().all()
        assert a.nfe == b.nfe


def test_exported_rules_pass_the_linter(tmp_path):
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for i, expression in enumerate(EXPORTED):
        (tmp_path / f"rule_{i}.py").write_text(as_rule_file(expression, f"rule-{i}"))
    config = Path(__file__).parent.parent / "pyproject.toml"
    done = subprocess.run([ruff, "check", "--config", str(config), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("key", ["", "My rule", "a--b", "../x", "3d", 'a"', "é", "a-"])
def test_a_rule_file_needs_a_name(key):
    with pytest.raises(InputError, match="expected small letters, digits and single dashes"):
        as_rule_file(CFG, key)


def test_the_command_checks_a_formula_and_writes_its_file(tmp_path, capsys, monkeypatch, own_rules):
    path = tmp_path / "my_rule.py"
    assert main(["formula", GATED, "-o", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "needs main, weak",
        "w = 3 (a number from 0 to 10)",
        "low = 0.2 (a number from 0 to 10)",
        "high = 1.6 (a number from 0 to 10)",
        f"written to {path}",
    ]
    assert path.read_text() == as_rule_file(GATED, "my-rule")
    monkeypatch.setenv("TOYGUIDE_RULES", str(tmp_path))
    torch.testing.assert_close(walk(tg.rule("my-rule", w=2))[-1].x, walk(typed(GATED, w=2))[-1].x, rtol=0, atol=0)
    assert main(["formula", "D_main", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"needs": ["main"], "parameters": {}, "file": None}
    for wrong, complaint in {
        ("D_wek",): "did you mean 'D_weak'",
        (CFG, "-o", "rule.txt"): "expected a name that ends in .py",
        (CFG, "-o", "Rule.py"): "rule name 'Rule'",
        (CFG, "-o", str(tmp_path / "none" / "rule.py")): "none",
    }.items():
        assert main(["formula", *wrong]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert complaint in err
