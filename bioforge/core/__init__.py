"""Types, events, errors, interfaces and small pure helpers that every package uses."""
