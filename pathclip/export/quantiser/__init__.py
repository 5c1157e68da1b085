"""From an fp32 graph to an int8 one: recipes, ranges and what mends the loss."""
