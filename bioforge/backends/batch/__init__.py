"""Send requests as Batch API jobs and collect their results."""
