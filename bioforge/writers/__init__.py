"""Write records as JSON Lines, CSV and Markdown."""
