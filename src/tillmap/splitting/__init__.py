"""Which rows train, which are held out, which are asked about, and how far new rows are from those."""
