"""Descriptions of products from outside: from a table of the user's, or from a search API."""
