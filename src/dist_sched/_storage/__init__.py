"""What lies in storage: pickles read as data, files and folders as trees, the states in them."""
