"""The fixtures of bioforge's kit: `simulator`, `project`, `make_project`."""

pytest_plugins = ["bioforge.testing"]
