"""Read and check bioforge.toml, the environment and the options of plugins."""
