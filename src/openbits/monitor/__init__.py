"""The privileged program: it starts the others and knows nothing of networks or files. Standard library only."""
