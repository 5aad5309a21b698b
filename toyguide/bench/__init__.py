"""What everything costs, as ratios against the textbook formulation in the same run.

timing    alternates two functions and tells how long each took
textbook  the formulation to compare with, plainly from the maths
cases     what is measured
growth    the cost against the number of components, points, dimensions and steps, and its figure
multiples what derivatives cost in units of the score
memory    the largest memory of a process of its own
machine   what it was measured on
report    the table and BENCHMARKS.md
"""
