"""Storage: reading pickles as data, files and folders as trees, and finding states in them."""
