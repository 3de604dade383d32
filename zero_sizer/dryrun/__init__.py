"""Independent sources to hold predictions against."""
