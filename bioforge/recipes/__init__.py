"""Recipes: from the project file to templates, variants and schemas."""
