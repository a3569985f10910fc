"""Decide when a request may be sent: rate limits, concurrency, retries, circuit breaker and budget."""
