"""On the path before the installed Ray, this makes it as if there were none."""

raise ModuleNotFoundError("No module named 'ray'", name="ray")
