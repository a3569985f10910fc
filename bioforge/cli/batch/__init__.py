"""The commands of `bioforge batch`."""
