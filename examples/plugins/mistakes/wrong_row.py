from bioforge.plugin import hookimpl

BIOFORGE_API = 1


def read_list(stream, source, options):
    for name in stream:
        yield name.decode()


@hookimpl
def bioforge_readers():
    return {"list": read_list}
