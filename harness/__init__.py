"""The harness: trains, exports, runs, scores and times every model of the zoo on the same data.

>>> from harness.models import open_model
>>> from harness.localize import localize
>>> found = localize(open_model("deep_storm"), Path("movie.tif"), camera=camera).localizations
"""
