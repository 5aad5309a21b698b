"""Geometry of exact and learned fields: planes and grids, contours, curvature, critical points, regions."""
