"""The OpenAI API: the only package that imports the SDK."""
