"""What the programs say to each other: the codec, the channel and the messages. Standard library only."""
