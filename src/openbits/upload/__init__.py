"""Upload protocols without I/O: what is said by either end, as values; used by the worker and by bits-server."""
