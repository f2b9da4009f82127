"""What a finished run says: the comparison of its arms, tables, progress lines and one page."""
