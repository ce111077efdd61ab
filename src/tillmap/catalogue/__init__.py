"""Reading a user's rows and checking them; the built-in demo catalogue."""
