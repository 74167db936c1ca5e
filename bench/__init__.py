"""The benchmark suite: OpenBITS beside other programs, in one run, on this machine."""
