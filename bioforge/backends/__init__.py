"""Send requests: threads, asyncio, batches, and the choice between them."""
