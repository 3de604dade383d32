"""Declared allocations, added up over the moments of a step, per device."""
