"""OpenBITS: the Background Intelligent Transfer Service for Linux."""
