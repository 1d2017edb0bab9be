"""What the rows of the study say: a section a question, each with its claims, tables and figures."""
