"""Comparisons of runs, of a sweep or not: statistics over seeds in tables and charts, on one page."""
