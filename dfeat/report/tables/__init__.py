"""Tables as rows, and as CSV, Markdown and LaTeX."""
