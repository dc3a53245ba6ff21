"""What came after the paper.

Paths through a mask, and networks that are smaller because of them.
"""
