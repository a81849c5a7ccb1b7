"""Cutting a byte stream into lines, however the bytes arrive."""


class LineSplitter:
    """Chunks in, whole lines out. A line may be as long as memory allows: objects have no limit here."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """Pieces of the line that is not complete yet; joined once, so a long line costs what it weighs."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that *chunk* completes, without their ends and without empty ones."""
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            self._parts.append(chunk)
            return []
        if self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts.clear()
        if rest := lines.pop():
            self._parts.append(rest)
        return [line for line in lines if line and line != b"\r"]

    def rest(self) -> bytes:
        """What is left when the stream has ended: a line that was cut, or nothing. The splitter is empty afterwards."""
        rest = b"".join(self._parts)
        self._parts.clear()
        return rest.strip()
