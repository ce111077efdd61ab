"""The cascade: a free arm answers the rows it is confident about, a language model the others."""
