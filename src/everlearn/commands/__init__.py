"""The commands of the command line, a file a group; `everlearn.cli` puts them together."""
