"""Read artists from CSV, JSON Lines, plugins' formats, files and URLs."""
