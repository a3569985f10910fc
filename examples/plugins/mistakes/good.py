from bioforge.plugin import Artist, hookimpl

BIOFORGE_API = 1


def read_list(stream, source, options):
    for line, name in enumerate(stream, 1):
        yield Artist(str(line), name.decode().strip(), source=source, line=line)


@hookimpl
def bioforge_readers():
    return {"list": read_list}
