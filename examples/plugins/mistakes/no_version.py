from bioforge.plugin import hookimpl


@hookimpl
def bioforge_readers():
    return {}
