"""Shared by several claims: networks, points and fields."""
