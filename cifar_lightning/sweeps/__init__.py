"""Many runs: a plan of them, their placement by Ray, and the comparison of what came out."""
