"""The command line's parts: one file a group of commands, none of which imports anything heavy."""
