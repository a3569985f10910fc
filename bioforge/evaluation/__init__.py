"""Statistics and scores for comparing the variants of a recipe."""
