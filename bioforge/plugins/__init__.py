"""Find, load and check plugins; install and remove them."""
