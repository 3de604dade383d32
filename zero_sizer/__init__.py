"""Know what a DeepSpeed job needs before you launch it."""
__version__ = "0.1.0"
