"""The vendor: everything that knows OpenAI's API, registered through the same hook as everybody's."""
