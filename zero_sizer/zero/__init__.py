"""How ZeRO cuts, gathers and reduces: plain numbers in, elements and bytes out."""
