"""The commands of `bulk-switch`, a module per subject; `operations.command_line` puts them together."""
