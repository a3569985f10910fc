"""Decide what is stale, why and at what price."""
