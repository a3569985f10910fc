"""Show a run: screen, logs and totals."""
