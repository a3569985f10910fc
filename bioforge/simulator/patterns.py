"""Example strings for regular expressions, for the `pattern` keyword of JSON Schema.

Understands literals, `.`, classes, `\\d \\w \\s`, groups, alternatives, quantifiers and anchors, which covers
the patterns people write in schemas. Look-around and back-references are not: `example` raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable

Choose = Callable[[int], int]
"""`choose(n)`: a number from 0 to n - 1."""

_DIGITS = "0123456789"
_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_PRINTABLE = "".join(map(chr, range(32, 127)))
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": " "}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_MORE = 3
"""How far beyond its least number an open quantifier (`*`, `+`, `{2,}`) goes."""
_LARGE = 1000
"""Most repetitions a quantifier may demand, and most it is followed beyond them."""


def example(pattern: str, choose: Choose) -> str:
    """A string the pattern matches. ValueError for a pattern beyond this module."""
    reader = _Reader(pattern, choose)
    text = reader.alternatives()
    if reader.place < len(pattern):
        raise ValueError(f"unbalanced ')' in pattern {pattern!r}")
    return text


class _Reader:
    """Reads a pattern from left to right, writing an example as it goes.

    A repeated piece is read again for each repetition, so that `[a-z]+` gives different letters.
    """

    def __init__(self, pattern: str, choose: Choose) -> None:
        self.pattern = pattern
        self.choose = choose
        self.place = 0

    def peek(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def next(self) -> str:
        character = self.peek()
        if not character:
            raise ValueError(f"pattern {self.pattern!r} ends too early")
        self.place += 1
        return character

    def alternatives(self) -> str:
        options = [self.sequence()]
        while self.peek() == "|":
            self.next()
            options.append(self.sequence())
        return options[self.choose(len(options))]

    def sequence(self) -> str:
        text = ""
        while self.peek() not in ("", "|", ")"):
            start = self.place
            piece = self.atom()
            least, most = self.quantifier()
            end = self.place
            times = least + self.choose(most - least + 1)
            for repetition in range(times):
                if repetition:
                    self.place = start
                    piece = self.atom()
                text += piece
            self.place = end
        return text

    def atom(self) -> str:
        match character := self.next():
            case "^" | "$":
                return ""
            case ".":
                return self.pick(_WORD)
            case "[":
                return self.pick(self.character_class())
            case "(":
                return self.group()
            case "\\":
                return self.escape()
            case "*" | "+" | "?":
                raise ValueError(f"nothing to repeat in pattern {self.pattern!r}")
            case _:
                return character

    def pick(self, characters: str) -> str:
        if not characters:
            raise ValueError(f"empty class in pattern {self.pattern!r}")
        return characters[self.choose(len(characters))]

    def group(self) -> str:
        if self.peek() == "?":
            self.next()
            kind = self.next()
            if kind in "P<" and self.peek() not in ("=", "!"):
                while self.next() != ">":
                    pass
            elif kind != ":":
                raise ValueError(f"look-around and back-references are not understood: {self.pattern!r}")
        text = self.alternatives()
        if self.next() != ")":
            raise ValueError(f"missing ')' in pattern {self.pattern!r}")
        return text

    def escape(self) -> str:
        character = self.next()
        if character in "bBAZz":
            return ""
        if character.isdigit():
            raise ValueError(f"look-around and back-references are not understood: {self.pattern!r}")
        return self.pick(self.escaped(character))

    def escaped(self, character: str) -> str:
        """The characters an escape stands for."""
        if character in "xu":
            length = 2 if character == "x" else 4
            return chr(int("".join(self.next() for _ in range(length)), 16))
        if character in _CLASSES:
            return _CLASSES[character]
        if character.lower() in _CLASSES:
            return _without(_CLASSES[character.lower()])
        return _CONTROL.get(character, character)

    def character_class(self) -> str:
        inverted = self.peek() == "^"
        if inverted:
            self.next()
        characters = ""
        first = True
        while first or self.peek() != "]":
            first = False
            low = self.class_member()
            if self.peek() == "-" and self.pattern[self.place + 1 : self.place + 2] not in ("]", ""):
                self.next()
                high = self.class_member()
                characters += "".join(map(chr, range(ord(low), ord(high) + 1)))
            else:
                characters += low
        self.next()
        return _without(characters) if inverted else characters

    def class_member(self) -> str:
        character = self.next()
        return self.escaped(self.next()) if character == "\\" else character

    def quantifier(self) -> tuple[int, int]:
        """The least and the greatest number of repetitions."""
        least, most = 1, 1
        match self.peek():
            case "*":
                least, most = 0, _MORE
            case "+":
                least, most = 1, 1 + _MORE
            case "?":
                least, most = 0, 1
            case "{":
                end = self.pattern.find("}", self.place)
                low, comma, high = self.pattern[self.place + 1 : end].partition(",")
                least = int(low or 0)
                most = int(high) if high else least + (_MORE if comma else 0)
                self.place = end
            case _:
                return least, most
        self.next()
        if self.peek() in ("?", "+"):
            self.next()
        if least > most or least > _LARGE:
            raise ValueError(f"quantifier out of range in pattern {self.pattern!r}")
        return least, min(most, least + _LARGE)


def _without(characters: str) -> str:
    return "".join(character for character in _PRINTABLE if character not in characters)
