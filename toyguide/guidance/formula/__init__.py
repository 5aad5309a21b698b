"""The language of a guidance rule that is typed as text.

    w = 3 [0, 10]; g = D_main - D_weak; D_main + (w - 1) * g * (sigma < 1)

Before the last semicolon stand declarations: ``NAME = NUMBER [LOW, HIGH]`` is a parameter (without a range it goes from
0 to 10), and ``NAME = EXPRESSION`` a name for a part. What follows is the guided denoiser.

A text is read by Python's parser into a tree, in which only what ``checking`` knows may occur: numbers, names, the
operators ``+ - * / **``, comparisons, and calls of the functions of ``vocabulary``. Kinds are checked as well: vectors
have shape ``(n, d)``, numbers ``(n, 1)`` or none. Nothing else is reachable, and length, depth and size are bounded, so
a text may come from anybody. What is checked is written as Python on tensors, which is what runs and what is exported.
"""

from toyguide.guidance.formula.checking import Parameter, Parsed, parse
from toyguide.guidance.formula.errors import FormulaError
from toyguide.guidance.formula.export import as_rule_file
from toyguide.guidance.formula.reading import LONGEST
from toyguide.guidance.formula.vocabulary import FIELDS, FUNCTIONS, VARIABLES

__all__ = [
    "FIELDS",
    "FUNCTIONS",
    "LONGEST",
    "VARIABLES",
    "FormulaError",
    "Parameter",
    "Parsed",
    "as_rule_file",
    "parse",
]
