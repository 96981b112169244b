"""Many runs: a plan of them, their placement on this machine or a Ray cluster, and their comparison."""
