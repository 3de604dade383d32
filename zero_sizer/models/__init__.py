"""Model shapes from every source."""
