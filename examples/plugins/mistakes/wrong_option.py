from pydantic import Field

from bioforge.plugin import Artist, Options, hookimpl, with_options

BIOFORGE_API = 1


class ListOptions(Options):
    skip: int = Field(0, ge=0, description="a whole number, how many lines to leave out")


@with_options(ListOptions)
def read_list(stream, source, options):
    for line, name in enumerate(stream, 1):
        if line > options.skip:
            yield Artist(str(line), name.decode().strip(), source=source, line=line)


@hookimpl
def bioforge_readers():
    return {"list": read_list}
