"""Who is let in, in which order, and what is given up before anybody is refused."""
