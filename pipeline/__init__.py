"""What every stage stands on: records, tables, units, commits, media and the command line."""
