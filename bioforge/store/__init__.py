"""The state: one SQLite file that people may query. Every SQL statement of bioforge stands in this folder."""

from bioforge.store.database import Store
from bioforge.store.selection import Selection

__all__ = ["Selection", "Store"]
