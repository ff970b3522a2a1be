"""Reviews that no person made: by a rule, or by a known truth."""
