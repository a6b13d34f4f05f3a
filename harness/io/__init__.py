"""Users' movies and tables: everything that is read from or written to disk for them."""

from .atomic import OutputError, atomic_path
from .movies import MovieError, MovieReader, open_movie
from .tables import TableError, read_table, write_table
from .writing import MovieWriter, write_movie

__all__ = [
    "MovieError",
    "MovieReader",
    "MovieWriter",
    "OutputError",
    "TableError",
    "atomic_path",
    "open_movie",
    "read_table",
    "write_movie",
    "write_table",
]
