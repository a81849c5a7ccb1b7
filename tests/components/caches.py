"""Where what is dear to make is kept between runs, outside the tree: Kafka's jars, Kubernetes' binaries, images."""

import hashlib
from pathlib import Path

from compose.image.debian import cache_root


class Unobtainable(Exception):
    """Something that is not cached cannot be made here either: *what*, with the *remedy*."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


def cached(kind: str, *recipes: Path) -> Path:
    """The folder of *kind* made by exactly these *recipes*: another content is another folder, nothing goes stale."""
    digest = hashlib.sha256()
    for recipe in recipes:
        digest.update(recipe.read_bytes())
    return cache_root() / f"{kind}-{digest.hexdigest()[:12]}"
