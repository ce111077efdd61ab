"""The built-in demo catalogue: simulated till receipt lines with labels, for trying the pipeline without data.

Nothing in it is real. Its goods are generic, its shops and brands are made up, and its lines are drawn from a seed.
"""

from tillmap.catalogue.demo.catalogue import DemoCatalogue, make_demo
from tillmap.catalogue.demo.files import write_contest_files

__all__ = ["DemoCatalogue", "make_demo", "write_contest_files"]
