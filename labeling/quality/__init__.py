"""How far people agree, and what annotation costs."""
