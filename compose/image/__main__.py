"""``python -m compose.image``: make the image of this checkout and print where it lies."""

import sys

from compose.image.building import image
from compose.image.debian import Unobtainable
from compose.image.dockerfile import Unreadable

if __name__ == "__main__":
    try:
        print(image())
    except (Unobtainable, Unreadable) as error:
        sys.exit(f"no image: {error}")
