"""Reviews and what follows from them: instances, verified masks, who is asked again, gold."""
