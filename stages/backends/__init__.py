"""One module per foreign model or site, behind ``interfaces``."""
