"""What is driven: optimizers, groups and their fields, the writer, process groups."""
