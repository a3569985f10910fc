"""The state: one SQLite file that people may query. All SQL of bioforge is in this package."""

from bioforge.store.database import Store
from bioforge.store.selection import Selection

__all__ = ["Selection", "Store"]
