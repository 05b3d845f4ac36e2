"""Pages: self-contained HTML files that open offline. They show what others computed."""
