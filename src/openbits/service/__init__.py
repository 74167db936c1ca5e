"""The unprivileged program that keeps the queue."""
