"""Foreign models and sites, a module each, behind ``interfaces``."""
