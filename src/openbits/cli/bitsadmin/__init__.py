"""`bitsadmin`: the commands that administrators of BITS know by heart, on top of the same client as `bits`."""
