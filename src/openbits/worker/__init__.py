"""One identity's transfers: the only program that touches the network and users' files."""
