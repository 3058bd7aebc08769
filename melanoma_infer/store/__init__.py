"""What is kept in an output folder: results that nothing replaces, their summary, and a record of each run."""
