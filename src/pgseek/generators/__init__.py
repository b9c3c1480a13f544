"""What writes questions and summaries for chunks: the protocol, and one file per kind of generator."""
