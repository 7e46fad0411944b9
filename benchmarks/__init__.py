"""Small scripts that run every contestant in one process, print a table and, with --json, one JSON object last."""
