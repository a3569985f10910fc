from bioforge.plugin import hookimpl

BIOFORGE_API = 1


@hookimpl
def bioforge_readers():
    return {"list": READERS["list"]}  # noqa: F821
