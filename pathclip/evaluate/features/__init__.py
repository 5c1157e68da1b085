"""The one pass over the pictures: decoding, colours, hashes, embeddings, and what is kept of them."""
