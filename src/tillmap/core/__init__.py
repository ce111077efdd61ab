"""What everything else is built on: the taxonomy, text, files, errors and the state of long runs."""
