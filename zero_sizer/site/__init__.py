"""A static site that runs this engine in the browser: its files, and what they are made of."""
