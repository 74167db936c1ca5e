"""What is on the disk: jobs, files, events and effects that are still to be carried out."""
