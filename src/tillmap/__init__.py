"""tillmap: till receipt lines to a product hierarchy."""
