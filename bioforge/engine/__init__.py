"""Run a project: open it, send what is stale, record, and write the outputs."""
