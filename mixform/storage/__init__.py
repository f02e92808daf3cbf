"""Keep a fit in a file that later versions read, and read it again.

The file is a zip archive: ``header.json``, which people can read, and the columns that
the model uses as NumPy's ``.npy`` arrays, never pickled. What a column is (numbers,
strings, factor with its levels, dates) stands in the header. Nothing is stored that can
be computed: reading a file applies the formula again and solves once at the stored
parameters.
"""

from mixform.storage.model import load as load
from mixform.storage.model import save as save
