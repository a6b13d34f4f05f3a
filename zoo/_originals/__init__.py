"""The originals' weight files: restricted readers, and the key maps that `import` and `parity` share."""

from ._errors import OriginalFileError
from ._layouts import LAYOUTS, Conventions, Layout
from ._readers import OriginalFile, read_original
from ._translate import Translation, fill, recognise, translate

__all__ = [
    "LAYOUTS",
    "Conventions",
    "Layout",
    "OriginalFile",
    "OriginalFileError",
    "Translation",
    "fill",
    "read_original",
    "recognise",
    "translate",
]
