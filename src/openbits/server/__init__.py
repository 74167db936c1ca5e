"""bits-server: takes uploads from BITS clients and hands out files; a program of its own."""
