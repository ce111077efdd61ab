"""The built-in demo catalogue: simulated till receipt lines with labels, to try the pipeline without data of your own.

Nothing in it is real. The goods are generic, the shops and brands are made up, and the lines are drawn from a seed.
"""

from tillmap.catalogue.demo.catalogue import DemoCatalogue, make_demo
from tillmap.catalogue.demo.files import write_contest_files

__all__ = ["DemoCatalogue", "make_demo", "write_contest_files"]
