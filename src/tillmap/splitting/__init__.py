"""Which rows are for training, which are held out, which are answered, and how much new rows differ from them."""
