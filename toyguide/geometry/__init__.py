"""Geometry of any field, exact or learned: planes and grids, curvature, regions."""
