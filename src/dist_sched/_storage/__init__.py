"""What lies in storage: pickles read as data, folders and files as trees."""
