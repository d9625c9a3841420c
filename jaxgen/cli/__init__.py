"""The command line: parsing, and one file a command."""
