"""How fast is it, and does it stay so? Measurements whose numbers are ratios inside one run; see `__main__.py`."""
