BIOFORGE_API = 1


def bioforge_readers():
    return {}
