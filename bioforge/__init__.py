"""Make for LLM generations: ask only for what is new, changed or failed, and never pay for an answer twice."""

__version__ = "0.1.0"
