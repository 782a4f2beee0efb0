"""Figures as PNG and SVG, in one style."""
