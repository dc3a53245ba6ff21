"""What came after the paper: paths through a mask, and networks that are smaller because of them."""
