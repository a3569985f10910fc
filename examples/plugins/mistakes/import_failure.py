import sheets_of_somebody  # noqa: F401

BIOFORGE_API = 1
