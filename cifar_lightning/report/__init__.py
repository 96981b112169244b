"""The report of a run: what it learned, how, where it fails and what it costs, on one page."""
