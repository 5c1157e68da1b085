"""Which recipe: trials, their objective and their Pareto front."""
